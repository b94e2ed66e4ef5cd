package sandbox

import (
	"runtime"
	"strings"

	"github.com/bobbuild/bob/executor/obstacle"
)

// tryEmulators tells which architectures the machine runs, and of which bob has an
// emulator that it can register.
func tryEmulators(o *probeOrder) outcome {
	dir, err := o.dir("")
	if err != nil {
		return no(err.Error(), "")
	}
	e := &Emulators{Dir: dir, Mode: o.mode}
	var machines, others []*architecture
	var why error
	for _, a := range architectures() {
		switch err := a.try(o.ctx, dir); {
		case a.name == runtime.GOARCH:
		case err == nil:
			machines = append(machines, &a)
		default:
			why = err
			others = append(others, &a)
		}
	}
	var detail []string
	if len(machines) > 0 {
		detail = append(detail, names(machines)+" by the machine")
	}
	var found *obstacle.Obstacle
	if len(others) > 0 {
		if found = e.open(dir, why); found == nil {
			defer func() { _ = e.Close() }()
			found = &obstacle.Obstacle{Why: why.Error() + ", and none that bob could register is in PATH"}
		}
	}
	var own []*architecture
	for _, a := range others {
		if e.own != nil && e.register(o.ctx, dir, a) == nil {
			own = append(own, a)
		}
	}
	if len(own) > 0 {
		detail = append(detail, names(own)+" by emulators that bob registers for itself")
	}
	if len(detail) > 0 {
		return yes(strings.Join(detail, "; "))
	}
	return refusal(others[0].howElse(found))
}

// names lists architectures for people.
func names(all []*architecture) string {
	list := make([]string, 0, len(all))
	for _, a := range all {
		list = append(list, a.name)
	}
	return strings.Join(list, ", ")
}
