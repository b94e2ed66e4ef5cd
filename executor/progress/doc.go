// Package progress shows a build to people and machines: each [View] renders
// the one stream of [event.Event] that a build emits.
//
// # Terms
//
// A vertex is one step of the build as the user sees it, numbered in order of
// appearance. A header is the line "#4 [build 2/5] RUN make" that introduces a
// vertex in the plain view. The tail is the last output kept of a vertex, to
// be shown while it runs and repeated if it fails.
//
// # Views
//
//   - plain: lines for logs and pipes, as docker buildx build
//     --progress=plain writes them;
//   - tty: a live picture for terminals, redrawn in place;
//   - quiet: nothing but the output of what failed;
//   - rawjson: one JSON object per line in the shape of BuildKit's
//     client.SolveStatus (github.com/moby/buildkit v0.34), for tools that read
//     docker buildx build --progress=rawjson.
//
// The first three end with the last output of each failed vertex between
// lines of dashes, as buildx does.
//
// # Hostile output
//
// What a build prints is controlled by its Dockerfile. Every text is made
// valid UTF-8 and loses its control characters, escape sequences, and
// bidirectional overrides before it reaches the writer; only the tty view
// lets colours through. Lines are cut to pieces of 64 KiB, a vertex to a total
// and a rate (see [Options]), so that memory stays bounded whatever is printed.
// The rawjson view passes bytes as they are, in base64.
//
// # Times
//
// Durations come from [event.Event.Time] alone. A clock is used only where
// time passes without events: by the tty view for the running times on the
// screen, and by the plain view to give up waiting for a silent vertex.
//
// # What it doesn't do
//
// Views read no input and no environment, handle no signals (the tty view
// measures the terminal each time it draws), and don't close their writer. They
// print neither the Dockerfile excerpt nor the error that ended the build: the
// command does that, after [View.Close]. No special kernel features are needed.
package progress
