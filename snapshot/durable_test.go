package snapshot_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// reboot has the machine be in another boot from now on, for this mount namespace and
// until the test ends.
func reboot(t *testing.T) {
	t.Helper()
	const file = "/proc/sys/kernel/random/boot_id"
	fake := filepath.Join(t.TempDir(), "boot_id")
	write(t, fake, "00000000-0000-4000-8000-"+digest.FromString(t.TempDir()).Encoded()[:12]+"\n")
	must(t, os.Chmod(fake, 0o644))
	must(t, unix.Mount(fake, file, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(file, unix.MNT_DETACH)) })
}

// A batch is one of everything that a store keeps.
type batch struct {
	name         string
	record, blob digest.Digest
	mount        digest.Digest
	base, step   string // snapshots: a layer of an image, and a step on it
}

func fillBatch(t *testing.T, s *snapshot.Store, name string) batch {
	t.Helper()
	b := batch{name: name, record: digest.FromString("record " + name), mount: digest.FromString("mount " + name)}
	base := unpack(t, s, layer(t, file(name, name)))
	a, err := s.Prepare(t.Context(), base)
	must(t, err)
	write(t, a.Root()+"/step", name)
	step, err := a.Commit()
	must(t, err)
	b.base, b.step = base.ID(), step.ID()
	w, err := s.CreateBlob()
	must(t, err)
	_, err = w.Write([]byte("blob " + name))
	must(t, err)
	b.blob, _, err = w.Commit()
	must(t, err, s.PutRecord("kind-1", b.record, []byte(name)))
	if !b.fillMount(t, s) {
		t.Error("the cache mount was there already")
	}
	return b
}

// fillMount opens the cache mount and reports whether it was filled anew.
func (b *batch) fillMount(t *testing.T, s *snapshot.Store) (filled bool) {
	t.Helper()
	c, err := s.CacheMount(t.Context(), b.mount, snapshot.Locked, nil, func(path string) error {
		filled = true
		return os.Mkdir(path, 0o755)
	})
	must(t, err, c.Close())
	return filled
}

// there says what of the batch is found.
func (b *batch) there(t *testing.T, s *snapshot.Store) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	note := func(name string, err error) {
		t.Helper()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s %s: %v", name, b.name, err)
		}
		found[name] = err == nil
	}
	value, err := s.Record("kind-1", b.record)
	note("record", err)
	if err == nil && string(value) != b.name {
		t.Errorf("the record has %q", value)
	}
	_, err = s.Snapshot(b.base)
	note("base", err)
	_, err = s.Snapshot(b.step)
	note("step", err)
	f, err := s.OpenBlob(t.Context(), b.blob)
	note("blob", err)
	if err == nil {
		must(t, f.Close())
	}
	return found
}

func (b *batch) want(t *testing.T, s *snapshot.Store, want bool) {
	t.Helper()
	for name, found := range b.there(t, s) {
		if found != want && name != "blob" { // which is known by its digest
			t.Errorf("%s %s: found %t, want %t", name, b.name, found, want)
		}
	}
	if filled := b.fillMount(t, s); filled == want {
		t.Errorf("cache mount %s: filled %t", b.name, filled)
	}
}

// TestPowerFailure: what was on the disk is there after it and nothing else is.
func TestPowerFailure(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	s := openStore(t, dir)
	early := fillBatch(t, s, "early")
	must(t, snapshot.Sync(t.Context(), dir))
	late := fillBatch(t, s, "late")
	must(t, s.Close())
	again := openStore(t, dir)
	early.want(t, again, true)
	late.want(t, again, true)
	must(t, again.Close())
	for _, p := range glob(t, dir, "ids/*/snapshots/*/fs/late") { // as a power failure may leave it
		must(t, os.Truncate(p, 0))
	}

	reboot(t)
	s = openStore(t, dir)
	early.want(t, s, true)
	late.want(t, s, false)
	must(t, s.Close())
	s = openStore(t, dir)
	before, err := s.Items(t.Context())
	must(t, err)
	_, err = s.Prune(t.Context(), snapshot.PruneOptions{Keep: 1 << 40})
	must(t, err)
	after, err := s.Items(t.Context())
	must(t, err)
	if len(before)-len(after) != 2 { // the late snapshots
		t.Errorf("of %d items %d are left", len(before), len(after))
	}
	must(t, s.Close())
	s = openStore(t, dir)
	if anew := unpackBase(t, s, "late"); anew != late.base {
		t.Errorf("the base is %s, was %s", anew, late.base)
	}
	early.want(t, s, true)
	must(t, s.Close(), snapshot.Sync(t.Context(), dir))

	reboot(t)
	s = openStore(t, dir)
	early.want(t, s, true)
	if found := late.there(t, s); !found["base"] || found["step"] {
		t.Errorf("then found %v", found)
	}
	must(t, s.Close())
	for _, p := range glob(t, dir, "synced/*") {
		must(t, os.Truncate(p, 30))
	}
	s = openStore(t, dir)
	early.want(t, s, false)
}

// unpackBase unpacks the base of a batch anew over what is left of it.
func unpackBase(t *testing.T, s *snapshot.Store, name string) string {
	t.Helper()
	sn := unpack(t, s, layer(t, file(name, name)))
	wantNames(t, "base", names(t, viewed(t, s, sn)), ".", name)
	b, err := os.ReadFile(viewRoot(t, s, sn) + "/" + name)
	must(t, err)
	if string(b) != name {
		t.Errorf("the base holds %q", b)
	}
	return sn.ID()
}

func viewRoot(t *testing.T, s *snapshot.Store, sn *snapshot.Snapshot) string {
	t.Helper()
	v, err := s.View(t.Context(), sn)
	must(t, err)
	return v.Root()
}

func glob(t *testing.T, dir, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	must(t, err)
	if len(found) == 0 {
		t.Fatalf("nothing matches %s", pattern)
	}
	return found
}

// TestDamaged: files that are not what they were are as good as none, and can be made
// anew.
func TestDamaged(t *testing.T) {
	t.Parallel()
	needMounts(t)
	for damage, f := range map[string]func([]byte) []byte{
		"empty":     func([]byte) []byte { return nil },
		"truncated": func(b []byte) []byte { return b[:len(b)/2] },
		"zeros":     func(b []byte) []byte { return make([]byte, len(b)) },
		"garbage":   func(b []byte) []byte { return bytes.Repeat([]byte("\x07{"), len(b)/2+1)[:len(b)] },
		"longer":    func(b []byte) []byte { return append(b, 'x') },
	} {
		t.Run(damage, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := openStore(t, dir)
			b := fillBatch(t, s, "some")
			_, err := s.Items(t.Context()) // measures
			must(t, err, s.Close())
			for _, pattern := range []string{"records/*/*/*", "blobs/*/*", "ids/*/snapshots/*/meta.json", "ids/*/snapshots/*/size", "ids/*/caches/*/*/made"} {
				for _, p := range glob(t, dir, pattern) {
					data, err := os.ReadFile(p)
					must(t, err, os.WriteFile(p, f(data), 0o600))
				}
			}
			s = openStore(t, dir)
			for name, found := range b.there(t, s) {
				if found {
					t.Errorf("found the %s", name)
				}
			}
			_, err = s.Items(t.Context())
			must(t, err)
			again := fillBatch(t, s, "some") // fails if the cache mount is there
			again.want(t, s, true)
			if again.base != b.base || again.blob != b.blob {
				t.Errorf("made %v, had %v", again, b)
			}
			must(t, s.Close())
			s = openStore(t, dir)
			removed, err := s.Prune(t.Context(), snapshot.PruneOptions{})
			must(t, err)
			if left, err := s.Items(t.Context()); err != nil || len(left) > 0 {
				t.Errorf("removed %d, left %v, %v", len(removed), left, err)
			}
		})
	}
}
