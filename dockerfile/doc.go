// Package dockerfile turns the text of a Dockerfile into the steps of a build.
//
// The way is text → [File] → [Plan] → [Step]: [Parse] reads the text,
// [File.Plan] resolves build arguments, platforms and references between
// stages into the needed stages, and [Stage.Steps] gives, once the
// configuration of the base image is known, everything that has to be done and
// the image configuration after each step.
//
// # Terms
//
//   - Stage: a FROM and the instructions up to the next FROM.
//   - Base: what FROM names, an image, an earlier stage or scratch.
//   - Root: the first stage of a chain of stages that are based on each other;
//     its base is an image or scratch.
//   - Target: the stage whose image is the result.
//   - Global argument: an ARG before the first FROM, visible in FROM lines and
//     in the stages that declare it again.
//   - Trigger: an instruction stored by ONBUILD, run first in each stage that
//     is based on the image that holds it.
//   - Operation: what a step does to the file system, an [Op]. A step without
//     one changes only the configuration.
//
// # Specification
//
// The language is that of the Dockerfile reference
// (https://docs.docker.com/reference/dockerfile/) as BuildKit v0.34 reads it:
// lines, flags, heredocs and variables are read by its own parser, and
// environment order, history entries and step names are made to be the same.
//
// # What it doesn't do
//
// The package does no I/O, runs nothing, reads no clock and needs nothing of
// the kernel. It doesn't know the context: whether a source exists is found out
// by whoever runs the step. Only Linux images are planned. Refused by name with
// their line are RUN --mount, --security=insecure and --device; COPY --parents;
// --exclude; symbolic modes in --chmod; and ADD of anything that is not in the
// context.
package dockerfile
