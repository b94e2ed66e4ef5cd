package diagnosis

import (
	"errors"
	"strings"
	"testing"

	"github.com/bobbuild/bob/executor/doctor"
	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/snapshot"
)

func TestDiagnose(t *testing.T) {
	t.Parallel()
	overlay := doctor.Finding{Name: "overlay", What: "overlays", Need: doctor.Optional}
	space := doctor.Finding{Name: "space", What: "free space", Need: doctor.ForAll}
	run := doctor.Finding{Name: "run", What: "a container", Need: doctor.ForRUN}
	proc := doctor.Finding{Name: "proc", What: "a /proc", Need: doctor.Optional}
	answered := func(f doctor.Finding, a doctor.Answer, fix string) doctor.Finding {
		f.Answer, f.Fix = a, fix
		return f
	}
	for _, test := range []struct {
		name     string
		mode     *isolation.Mode
		wanted   snapshot.Snapshotter
		findings []doctor.Finding
		err      error
		want     []string // lines
	}{
		{
			"all", &isolation.Mode{Isolation: isolation.Namespaces}, "",
			[]doctor.Finding{answered(overlay, doctor.Yes, ""), answered(run, doctor.Yes, ""), answered(proc, doctor.No, "unmask")},
			nil,
			[]string{"a /proc      no", "a /proc: unmask", "Builds work: RUN gets a sandbox, snapshots are made by overlay."},
		},
		{
			"one ID", &isolation.Mode{Isolation: isolation.Namespaces, OneID: true}, "",
			[]doctor.Finding{answered(overlay, doctor.Yes, ""), answered(run, doctor.Yes, "")},
			nil,
			[]string{"Builds work: RUN gets a sandbox with one ID, snapshots are made by overlay."},
		},
		{
			"no isolation", &isolation.Mode{Isolation: isolation.None}, "",
			[]doctor.Finding{answered(overlay, doctor.Unknown, ""), answered(run, doctor.Unknown, "")},
			ErrWithoutRUN,
			[]string{"overlays     ?", "a container  ?", "Only builds without RUN work."},
		},
		{
			"no overlay, which was asked for", &isolation.Mode{Isolation: isolation.Namespaces}, snapshot.Overlay,
			[]doctor.Finding{answered(overlay, doctor.No, "elsewhere"), answered(run, doctor.Yes, "")},
			ErrNone,
			[]string{"overlays     NO", "overlays: elsewhere", "Builds don't work here."},
		},
		{
			"no RUN", &isolation.Mode{Isolation: isolation.Namespaces}, "",
			[]doctor.Finding{answered(overlay, doctor.Yes, ""), answered(run, doctor.No, "a\x1bb\nc"), answered(proc, doctor.No, "a\x1bb\nc")},
			ErrWithoutRUN,
			[]string{"a container  NO", `a container: a\x1bb`, "c", "Only builds without RUN work."},
		},
		{
			"nothing", &isolation.Mode{Isolation: isolation.Namespaces}, "",
			[]doctor.Finding{answered(space, doctor.No, ""), answered(run, doctor.No, "")},
			ErrNone,
			[]string{"free space   NO", "Builds don't work here. What says NO above has to be mended."},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := Of(test.mode, test.wanted, test.findings)
			if err := d.Err(); !errors.Is(err, test.err) {
				t.Errorf("the error is %v, want %v", err, test.err)
			}
			var b strings.Builder
			if err := d.WriteTable(&b); err != nil {
				t.Fatal(err)
			}
			rest := b.String()
			for _, want := range test.want {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Fatalf("no %q, after what came before it, in\n%s", want, b.String())
				}
				rest = after
			}
			if n := strings.Count(b.String(), `a\x1bb`); n > 1 {
				t.Errorf("the same fix is shown %d times", n)
			}
		})
	}
}
