package doctor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/obstacle"
)

// tryUserNamespace makes a user namespace with one ID, which takes no helper, in
// the way that Enter makes its own.
func tryUserNamespace(o *probeOrder) outcome {
	if o.Inside {
		// A security module may let a namespace be made and then refuse every
		// capability in it. This one is asked for by a call that no seccomp
		// filter refuses.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_WAKE_ALARM, 0, 0, 0); err != nil {
			return refusal(obstacle.OfNamespaces())
		}
		return yes("")
	}
	inside := *o
	inside.Inside = true
	cmd, err := inside.command(o.ctx)
	if err != nil {
		return no(err.Error(), "")
	}
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	err = isolation.TryUserNamespace(cmd)
	var out outcome
	switch {
	case json.Unmarshal(stdout.Bytes(), &out) == nil && out.Answer != "":
		return out
	case err != nil:
		return refusal(isolation.Reason(err))
	}
	return outcome{Answer: Unknown, Obstacle: &obstacle.Obstacle{Why: "the probe said nothing"}}
}

// tryRanges looks for what entering with more than one ID takes.
func tryRanges(*probeOrder) outcome {
	if os.Geteuid() == 0 {
		return yes("root needs none")
	}
	n, err := isolation.Ranges()
	if err != nil {
		return refusal(isolation.Reason(err))
	}
	return yes(fmt.Sprintf("%d IDs", n))
}

// tryMode tells what entering leads to.
func tryMode(o *probeOrder) outcome {
	out := yes("")
	switch {
	case !o.mode.CanMount():
		out = no("RUN gets "+o.mode.String()+": "+o.mode.Why(), "")
		if len(o.mode.Obstacles) > 0 {
			out.Obstacle.Fix = o.mode.Obstacles[0].Fix
		}
	case o.mode.OneID:
		out = yes("owners of files are emulated: " + o.mode.Why())
	default:
		n, err := isolation.CountIDs()
		if err != nil {
			return no(err.Error(), "")
		}
		if n < isolation.RangeSize {
			out = yes(fmt.Sprintf("only %d IDs: images with higher ones can't be built", n))
		}
	}
	out.Mode = o.mode
	return out
}
