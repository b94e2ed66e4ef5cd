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
//     its base is an image, a named context or scratch.
//   - Target: the stage whose image is the result.
//   - Global argument: an ARG before the first FROM, visible in FROM lines and
//     in the stages that declare it again.
//   - Trigger: an instruction stored by ONBUILD, run first in each stage that
//     is based on the image that holds it.
//   - Named context: what [Options.Contexts] gives in place of a stage, of a
//     base image, or of what a --from names.
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
// Progress texts differ in one thing: an instruction that a tab follows is shown
// in capitals alone, where BuildKit takes its first argument along.
//
// # What it doesn't do
//
// The package does no I/O, runs nothing, reads no clock and needs nothing of
// the kernel. It doesn't know the contexts: whether a source exists is found out
// by whoever runs the step, as is the time of the source that SOURCE_DATE_EPOCH
// names, see [File.EpochSource]. Only Linux images are planned. RUN --device is
// read; a device that is required is refused, any other is left out.
package dockerfile
