package locks_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/locks"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		if e.Name()[0] != '.' {
			all = append(all, e.Name())
		}
	}
	return all
}

func TestClaim(t *testing.T) {
	t.Parallel()
	dir, garbage := t.TempDir(), t.TempDir()
	mine, err := locks.NewClaim(dir)
	must(t, err)
	dropped, err := locks.NewClaim(dir)
	must(t, err)
	kept, err := locks.NewClaim(dir)
	must(t, err, os.WriteFile(kept.Path+"/file", nil, 0o600))
	if dead, err := locks.IsDead(mine.Path); dead || err != nil {
		t.Errorf("a claim is dead: %v", err)
	}
	must(t, dropped.Release(), kept.Become(filepath.Join(dir, "kept")))
	if dead, err := locks.IsDead(dropped.Path); !dead || err != nil {
		t.Errorf("a claim that was given up lives: %v", err)
	}
	must(t, os.Rename(filepath.Join(dir, "kept"), filepath.Join(garbage, "kept")), locks.Sweep(dir, garbage))
	if got := names(t, dir); len(got) != 1 || got[0] != filepath.Base(mine.Path) {
		t.Errorf("left %q, want %q", got, filepath.Base(mine.Path))
	}
	if _, err := os.Stat(filepath.Join(garbage, "kept", locks.Name)); !os.IsNotExist(err) {
		t.Errorf("what a claim became has its lock: %v", err)
	}
	must(t, mine.Drop())
	if got := names(t, dir); len(got) > 0 {
		t.Errorf("left %q", got)
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := locks.Wait(t.Context(), path, nil)
	must(t, err)
	if again, err := locks.Try(path); again != nil || err != nil {
		t.Errorf("taken twice: %v", err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	var holder int
	if _, err := locks.Wait(ctx, path, func(pid int) { holder = pid; cancel(cause) }); !errors.Is(err, cause) {
		t.Errorf("error %v", err)
	}
	if holder != os.Getpid() {
		t.Errorf("process %d holds it, this is %d", holder, os.Getpid())
	}
	time.AfterFunc(time.Millisecond, unlock)
	unlock, err = locks.Wait(t.Context(), path, nil)
	must(t, err)
	unlock()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file stays: %v", err)
	}
}

func TestTidy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	unlock, err := locks.Try(filepath.Join(dir, "held"))
	must(t, err, os.WriteFile(filepath.Join(dir, "left"), nil, 0o600), locks.Tidy(dir))
	if got := names(t, dir); len(got) != 1 || got[0] != "held" {
		t.Errorf("left %q", got)
	}
	unlock()
}

// TestClaimWhileLookedAt has others look at each claim from the moment it is there.
func TestClaimWhileLookedAt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	var lookers sync.WaitGroup
	for range 2 {
		lookers.Go(func() {
			for ctx.Err() == nil {
				entries, err := os.ReadDir(dir)
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range entries {
					if e.Name() == locks.GuardName {
						continue
					}
					if _, err := locks.IsDead(filepath.Join(dir, e.Name())); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for range 500 {
		c, err := locks.NewClaim(dir)
		if err != nil {
			t.Error(err)
			break
		}
		if err := c.Drop(); err != nil {
			t.Error(err)
		}
	}
	cancel()
	lookers.Wait()
}
