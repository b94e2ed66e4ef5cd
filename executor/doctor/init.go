package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/bobbuild/bob/executor/isolation"
)

// Init must be called in main behind sandbox.Init, and in TestMain of every package whose
// tests call Examine. In a process that Examine started it exits when the probe is done, in
// any other it returns at once.
func Init() {
	if encoded, found := os.LookupEnv(probeVariable); found {
		os.Exit(runProbe(encoded))
	}
}

// runProbe is the process of a probe. It returns the exit status.
func runProbe(encoded string) int {
	o := &probeOrder{ctx: context.Background()}
	if err := json.Unmarshal([]byte(encoded), o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, p := range probes() {
		if p.name == o.Name {
			if err := json.NewEncoder(os.Stdout).Encode(o.run(&p)); err != nil {
				return 1
			}
			return 0
		}
	}
	return 0 // it was the command of a RUN
}

// run brings the process to where the probe tries things, and has it try.
func (o *probeOrder) run(p *probe) outcome {
	if p.entered && !o.Inside {
		mode, err := isolation.Enter(isolation.Options{Rootless: o.Rootless, Isolation: o.Isolation})
		if err != nil {
			return refusal(isolation.Reason(err))
		}
		o.mode = mode
	}
	if p.namespaces != 0 && !o.Inside {
		return o.deeper(p.namespaces)
	}
	return p.try(o)
}
