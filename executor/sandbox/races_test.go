package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bobbuild/bob/executor/sandbox"
)

// TestRacedMountTargets makes mounts below a directory that two runs share, while another
// run changes what is at their targets: directories, files, and links to outside of the
// root file system. Whatever the mounts come to, nothing outside may change, and what was
// mounted must be gone.
func TestRacedMountTargets(t *testing.T) {
	t.Parallel()
	const rounds = 8
	outside := t.TempDir()
	for _, name := range []string{"x/y", "y"} {
		if err := os.MkdirAll(filepath.Join(outside, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	source := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(source, []byte("content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// Every user of the container may change it, as those of a cache.
	shared := t.TempDir()
	before := tree(t, outside)
	r := newRunner(t)

	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan struct{})
	var racer sync.WaitGroup
	racer.Go(func() {
		p := shell(newRoot(t), withApplets(strings.ReplaceAll(`echo; cd /shared; while :; do
			ln -s OUT l; mv -T l x; rm x; ln -s ../../../../../../../../..OUT x; rm x; ln -s /proc/1/root/OUT x; rm x
			mkdir -p x/y; mv x z; echo > x; rm -rf x z; ln -s / x; rm x; mkdir x; ln -s OUT x/y; rm -rf x; done 2> /dev/null`, "OUT", outside)))
		p.Mounts = []sandbox.Mount{{Source: shared, Target: "/shared"}}
		var once sync.Once
		p.Stdout = writerFunc(func(b []byte) (int, error) {
			once.Do(func() { close(started) })
			return len(b), nil
		})
		if err := r.Run(ctx, p); !errors.Is(err, context.Canceled) {
			t.Errorf("the run that changes targets ended: %v", err)
		}
	})
	defer racer.Wait()
	defer cancel()
	<-started
	mounted := 0
	for range rounds {
		root := newRoot(t)
		var out bytes.Buffer
		p := shell(root, "/bin/busybox cat /shared/x/f; echo x > /shared/x/y/written")
		p.Mounts = []sandbox.Mount{
			{Source: shared, Target: "/shared"},
			{Kind: sandbox.Tmpfs, Target: "/shared/x/y"},
			{Source: source, Target: "/shared/x/f", ReadOnly: true},
		}
		p.Stdout = &out
		err := r.Run(t.Context(), p)
		if strings.HasPrefix(out.String(), "content\n") {
			mounted++
		}
		t.Logf("%v, %q", err, &out)
		if left := mountsBelow(t, root); len(left) > 0 {
			t.Errorf("left mounted: %q", left)
		}
		if after := tree(t, outside); after != before {
			t.Fatalf("outside before:\n%safter:\n%s", before, after)
		}
	}
	t.Logf("%d of %d runs had their mounts", mounted, rounds)
	if content, err := os.ReadFile(source); err != nil || string(content) != "content\n" {
		t.Errorf("the source is %q, %v", content, err)
	}
}
