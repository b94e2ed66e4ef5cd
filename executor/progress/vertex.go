package progress

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	units "github.com/docker/go-units"

	"github.com/bobbuild/bob/executor/event"
)

// vertex is what every view but rawjson knows of a vertex.
type vertex struct {
	number  int
	name    string // clean
	started time.Time
	ended   time.Time // zero while it runs
	cached  bool
	err     string // clean; "" if it didn't fail

	streams [2]splitter // standard output and error: one must not end the other's lines
	tail    tail
}

func (v *vertex) id() int { return v.number }

// table holds vertices by number.
type table[V interface{ id() int }] []V

// get returns the vertex of that number, adding the one that create makes if
// there is none.
func (t *table[V]) get(number int, create func() V) V {
	i, ok := slices.BinarySearchFunc(*t, number, func(v V, n int) int { return cmp.Compare(v.id(), n) })
	if !ok {
		*t = slices.Insert(*t, i, create())
	}
	return (*t)[i]
}

func newVertex(number int, color bool) vertex {
	v := vertex{number: number}
	for i := range v.streams {
		v.streams[i].color = color
	}
	return v
}

// start begins the vertex. One that an event other than [event.Start] made known
// begins at that event and has no name.
func (v *vertex) start(e event.Event) {
	if e.Kind == event.Start {
		v.name = clean(e.Name)
	}
	if v.started.IsZero() || e.Kind == event.Start {
		v.started = e.Time
	}
}

// log reads output, keeps it in the tail and passes its lines to emit.
func (v *vertex) log(e event.Event, emit func(line)) {
	stream := 0
	if e.Stream == 2 {
		stream = 1
	}
	v.streams[stream].write(e.Time, e.Data, v.keeping(stream, emit))
}

// done ends the vertex. What is left of its last lines is passed to emit first.
func (v *vertex) done(e event.Event, emit func(line)) {
	v.flush(e.Time, emit)
	v.ended, v.cached, v.err = e.Time, e.Cached, clean(e.Err)
	if !v.failed() {
		v.tail = tail{}
	}
	v.streams = [2]splitter{{color: v.streams[0].color}, {color: v.streams[1].color}}
}

func (v *vertex) flush(at time.Time, emit func(line)) {
	for i := range v.streams {
		v.streams[i].flush(at, v.keeping(i, emit))
	}
}

// keeping returns emit with the tail put before it.
func (v *vertex) keeping(stream int, emit func(line)) func(line) {
	return func(l line) {
		l.stream = stream
		if l.end != endReturn {
			v.tail.add(l.at.Sub(v.started), l.text)
		}
		emit(l)
	}
}

func (v *vertex) running() bool { return v.ended.IsZero() }

// canceled says that the vertex didn't end by itself.
func (v *vertex) canceled() bool {
	return v.err == "canceled" || strings.HasSuffix(v.err, "context canceled")
}

// failed says that the vertex is what made the build fail.
func (v *vertex) failed() bool { return v.err != "" && !v.canceled() }

// age is how long the vertex has run at now, or ran.
func (v *vertex) age(now time.Time) time.Duration {
	if !v.running() {
		now = v.ended
	}
	return max(0, now.Sub(v.started))
}

// cacheLine is what an EventCache tells.
func cacheLine(e event.Event) string {
	if e.Cached {
		return "cache hit"
	}
	return "cache miss: " + clean(e.Name)
}

// appendStamp formats the age of a log line like BuildKit: seconds with four
// digits, at least one of them behind the point.
func appendStamp(b []byte, age time.Duration) []byte {
	seconds, decimals := max(0, age).Seconds(), 1
	switch {
	case seconds < 10:
		decimals = 3
	case seconds < 100:
		decimals = 2
	}
	return strconv.AppendFloat(b, seconds, 'f', decimals, 64)
}

// measure formats how far a transfer is, "" if that can't be said.
func measure(current, total int64) string {
	switch {
	case total > 0:
		return size(current) + " / " + size(total)
	case current > 0:
		return size(current)
	}
	return ""
}

func size(n int64) string {
	if n < units.KB {
		return fmt.Sprintf("%dB", max(0, n))
	}
	// HumanSize drops trailing zeros, which would make the columns jump.
	return units.CustomSize("%.2f%s", float64(n), units.KB, []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"})
}
