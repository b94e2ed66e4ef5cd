// Package diagnosis decides which builds work, from the findings of bob doctor.
package diagnosis

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/bobbuild/bob/cmd/bob/internal/terminal"
	"github.com/bobbuild/bob/executor/doctor"
	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/snapshot"
)

// A Verdict says which builds work.
type Verdict string

// The verdicts.
const (
	All        Verdict = "all"
	WithoutRUN Verdict = "without-run"
	None       Verdict = "none"
)

// These end bob doctor after it has said everything.
var (
	ErrWithoutRUN = errors.New("only builds without RUN work here")
	ErrNone       = errors.New("no build works here")
)

// A Diagnosis is what bob doctor prints, in JSON by these names.
type Diagnosis struct {
	Builds      Verdict              `json:"builds"`
	Isolation   isolation.Kind       `json:"isolation,omitempty"` // that builds would have
	OneID       bool                 `json:"oneID,omitempty"`
	Snapshotter snapshot.Snapshotter `json:"snapshotter,omitempty"`
	Findings    []doctor.Finding     `json:"findings"`

	mode *isolation.Mode
}

// Of makes a Diagnosis from the findings and the mode that builds would use, nil if no
// mode works. wanted is the snapshotter that the user asked for, "" for the best.
func Of(mode *isolation.Mode, wanted snapshot.Snapshotter, findings []doctor.Finding) *Diagnosis {
	d := &Diagnosis{Builds: All, Findings: findings, mode: mode}
	works := make(map[string]bool)
	snapshotters := map[string]snapshot.Snapshotter{"overlay": snapshot.Overlay, "fuse": snapshot.FuseOverlay}
	for i := range findings {
		f := &findings[i]
		if works[f.Name] = f.Answer == doctor.Yes; wanted != "" && snapshotters[f.Name] == wanted {
			f.Need = doctor.ForAll
		}
		switch {
		case works[f.Name], f.Need == doctor.Optional:
		case f.Need == doctor.ForAll:
			d.Builds = None
		case d.Builds == All:
			d.Builds = WithoutRUN
		}
	}
	if d.Builds == None || mode == nil {
		d.Builds = None
		return d
	}
	d.Isolation, d.OneID = mode.Isolation, mode.OneID
	if !mode.CanRun() {
		return d // and no snapshotter
	}
	switch {
	case wanted != "":
		d.Snapshotter = wanted
	case works["overlay"]:
		d.Snapshotter = snapshot.Overlay
	case works["fuse"]:
		d.Snapshotter = snapshot.FuseOverlay
	default:
		d.Snapshotter = snapshot.Copy
	}
	return d
}

// Err returns the error for the verdict, nil for All.
func (d *Diagnosis) Err() error {
	switch d.Builds {
	case All:
	case WithoutRUN:
		return ErrWithoutRUN
	case None:
		return ErrNone
	}
	return nil
}

// WriteTable writes the findings for people, what to do about them, and the verdict.
func (d *Diagnosis) WriteTable(w io.Writer) error {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, f := range d.Findings {
		answer, detail := string(f.Answer), f.Detail
		switch {
		case f.Answer == doctor.Unknown:
			answer = "?"
		case f.Answer == doctor.No && f.Need != doctor.Optional:
			answer = "NO"
		}
		if f.Why != "" {
			detail = f.Why
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", terminal.Escape(f.What), answer, terminal.Escape(detail))
	}
	_ = tw.Flush() // to a strings.Builder
	fixed := map[string]bool{}
	for _, f := range d.Findings {
		if f.Answer == doctor.No && f.Fix != "" && !fixed[f.Fix] {
			fmt.Fprintf(&b, "\n%s: %s\n", terminal.Escape(f.What), terminal.EscapeLines(f.Fix))
		}
		fixed[f.Fix] = true
	}
	switch d.Builds {
	case All:
		fmt.Fprintf(&b, "\nBuilds work: RUN gets %s, snapshots are made by %s.\n", d.mode, d.Snapshotter)
	case WithoutRUN:
		b.WriteString("\nOnly builds without RUN work.\n")
	case None:
		b.WriteString("\nBuilds don't work here. What says NO above has to be mended.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
