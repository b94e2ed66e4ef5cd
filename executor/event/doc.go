// Package event is how a build tells what it does: as one stream of events about the
// vertices of its progress, each of which is one thing that takes time. A [Reporter]
// makes the stream; package executor/progress shows it.
package event
