package executor_test

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/image"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// tarTimes returns the modification times in a tar by name.
func tarTimes(t *testing.T, r io.Reader) map[string]time.Time {
	t.Helper()
	found := map[string]time.Time{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		found[h.Name] = h.ModTime
	}
}

// topLayer returns the times of the files of an image's last layer.
func topLayer(t *testing.T, img v1.Image) map[string]time.Time {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	rc, err := layers[len(layers)-1].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	return tarTimes(t, rc)
}

const epochDockerfile = "FROM HOST/base\nENV A=b\nRUN f=1\nWORKDIR /w/d\nCOPY . /c/\nRUN g=2\n"

// TestSameDigestWithEpoch: with an epoch the digest depends neither on the store,
// nor on the number of jobs, nor on the clock, nor on what is in the cache, nor on
// times of the context that are later.
func TestSameDigestWithEpoch(t *testing.T) {
	k := newKit(t, shell)
	k.base("base", map[string]string{"etc/passwd": "root:x:0:0::/:/bin/sh\n"})
	epoch := time.Unix(1600000000, 0).UTC()
	k.epoch = &epoch
	var digests []string
	for i, jobs := range []int{1, 8, 8} {
		if i < 2 { // the third finds everything known
			k.store = t.TempDir()
			k.reopen()
		}
		dir := t.TempDir()
		names := []string{"x", "y", "z"}
		if i == 1 {
			slices.Reverse(names)
		}
		for n, name := range names {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
				t.Fatal(err)
			}
			later := epoch.Add(time.Duration(i+n+1) * time.Hour)
			if err := os.Chtimes(path, later, later); err != nil {
				t.Fatal(err)
			}
		}
		k.builder.Clock = func() time.Time { return time.Unix(1700000000+int64(i)*5000, int64(i)) }
		digests = append(digests, k.mustBuild(epochDockerfile, executor.Options{Context: dir, Jobs: jobs}).Manifest.Digest.String())
	}
	if digests[0] != digests[1] || digests[1] != digests[2] {
		t.Errorf("digests %q", digests)
	}
}

// TestEpochClamps looks at every time of an image.
func TestEpochClamps(t *testing.T) {
	k := newKit(t, shell)
	k.base("base", map[string]string{"etc/passwd": ""})
	epoch := time.Unix(1600000000, 0).UTC()
	k.epoch = &epoch
	dir := t.TempDir()
	old := epoch.Add(-time.Hour)
	for name, at := range map[string]time.Time{"new": epoch.Add(time.Hour), "old": old} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(dir, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	ref := k.host + "/out:1"
	k.mustBuild("FROM HOST/base\nENV A=b\nCOPY . /c/\n", executor.Options{Context: dir, Tags: []string{ref}})
	img, _ := k.pull(ref)
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if !config.Created.Equal(epoch) {
		t.Errorf("the image was created %v, want %v", config.Created, epoch)
	}
	for _, h := range config.History[len(config.History)-2:] {
		if !h.Created.Equal(epoch) {
			t.Errorf("%s: created %v, want %v", h.CreatedBy, h.Created, epoch)
		}
	}
	times := topLayer(t, img)
	for name, want := range map[string]time.Time{"c/": epoch, "c/new": epoch, "c/old": old} {
		if !times[name].Equal(want) {
			t.Errorf("%s has the time %v, want %v", name, times[name], want)
		}
	}
}

// TestEpochsDontShareLayers: builds with different epochs, and with none, run a
// step once and never take each other's layer for theirs.
func TestEpochsDontShareLayers(t *testing.T) {
	k := newKit(t, shell)
	k.base("base", map[string]string{"etc/passwd": ""})
	one, two := time.Unix(1600000000, 0).UTC(), time.Unix(1500000000, 0).UTC()
	start := time.Now().Add(-time.Minute)
	for _, epoch := range []*time.Time{nil, &one, &two, &one, nil} {
		k.epoch = epoch
		ref := k.host + "/out:1"
		k.mustBuild("FROM HOST/base\nRUN f=1\n", executor.Options{Tags: []string{ref}})
		img, _ := k.pull(ref)
		switch got := topLayer(t, img)["f"]; {
		case epoch == nil && got.Before(start):
			t.Errorf("without an epoch: time %v", got)
		case epoch != nil && !got.Equal(*epoch):
			t.Errorf("epoch %v: time %v", epoch, got)
		}
	}
	if ran := k.taken(); len(ran) != 1 {
		t.Errorf("the step ran %d times", len(ran))
	}
}

// TestFileOutputsHaveTheEpoch: with an epoch each exported file has it, as with
// BuildKit, also the older ones.
func TestFileOutputsHaveTheEpoch(t *testing.T) {
	k := newKit(t, shell)
	k.base("base", map[string]string{"etc/passwd": ""})
	epoch := time.Unix(1600000000, 0).UTC()
	k.epoch = &epoch
	dir := t.TempDir()
	tarball, files := filepath.Join(dir, "out.tar"), filepath.Join(dir, "files")
	k.mustBuild("FROM HOST/base\nRUN f=1\n", executor.Options{Outputs: []image.Output{
		{Type: image.OutputTar, Dest: tarball}, {Type: image.OutputLocal, Dest: files},
	}})
	f, err := os.Open(tarball)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	times := tarTimes(t, f)
	for _, name := range []string{"f", "etc/", "etc/passwd"} {
		if !times[name].Equal(epoch) {
			t.Errorf("tar: %s has the time %v, want %v", name, times[name], epoch)
		}
		info, err := os.Stat(filepath.Join(files, name))
		if err != nil {
			t.Fatal(err)
		}
		if !info.ModTime().Equal(epoch) {
			t.Errorf("directory: %s has the time %v, want %v", name, info.ModTime(), epoch)
		}
	}
}
