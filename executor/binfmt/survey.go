package binfmt

import (
	"context"
	"runtime"
	"strings"

	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/obstacle"
)

// Survey tells which architectures the machine runs, and of which bob has an emulator that
// it can register, in the mode of this process. dir is an empty directory, as for
// Emulators. Where it runs no other architecture the obstacle says why.
func Survey(ctx context.Context, dir string, mode *isolation.Mode) (string, *obstacle.Obstacle) {
	e := &Emulators{Dir: dir, Mode: mode}
	defer func() { _ = e.Close() }()
	var machines, others []*architecture
	var why error
	for _, a := range architectures() {
		switch err := a.try(ctx, dir); {
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
	var refused *obstacle.Obstacle
	if len(others) > 0 {
		if refused = e.open(dir, why); refused == nil {
			refused = obstacle.New(why.Error()+", and none that bob could register is in PATH", "")
		}
	}
	var own []*architecture
	for _, a := range others {
		if e.own != nil && e.register(ctx, dir, a) == nil {
			own = append(own, a)
		}
	}
	if len(own) > 0 {
		detail = append(detail, names(own)+" by emulators that bob registers for itself")
	}
	if len(detail) > 0 {
		return strings.Join(detail, "; "), nil
	}
	return "", others[0].howElse(refused)
}

// names lists architectures for people.
func names(all []*architecture) string {
	list := make([]string, 0, len(all))
	for _, a := range all {
		list = append(list, a.name)
	}
	return strings.Join(list, ", ")
}
