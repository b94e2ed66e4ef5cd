package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"runtime/trace"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
)

// profileFlags are flags for those who work on bob. Usage doesn't show them.
type profileFlags struct {
	cpu, memory, trace string
}

func (f *profileFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&f.cpu, "cpuprofile", "", cli.Hidden)
	fs.StringVar(&f.memory, "memprofile", "", cli.Hidden)
	fs.StringVar(&f.trace, "trace", "", cli.Hidden)
}

// start begins to write what the flags ask for to the files that they name, as package
// runtime/pprof and runtime/trace do. The caller calls stop.
func (f *profileFlags) start() (stop func() error, err error) {
	var stops []func() error
	stop = func() (err error) {
		for _, s := range stops {
			err = errors.Join(err, s())
		}
		return err
	}
	begin := func(path string, start, end func(*os.File) error) {
		if path == "" || err != nil {
			return
		}
		var file *os.File
		if file, err = os.Create(path); err != nil {
			return
		}
		if err = start(file); err != nil {
			err = errors.Join(fmt.Errorf("profile: %w", err), file.Close())
			return
		}
		stops = append(stops, func() error { return errors.Join(end(file), file.Close()) })
	}
	begin(f.cpu, func(w *os.File) error { return pprof.StartCPUProfile(w) }, func(*os.File) error { pprof.StopCPUProfile(); return nil })
	begin(f.trace, func(w *os.File) error { return trace.Start(w) }, func(*os.File) error { trace.Stop(); return nil })
	begin(f.memory, func(*os.File) error { return nil }, func(w *os.File) error { runtime.GC(); return pprof.WriteHeapProfile(w) })
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}
