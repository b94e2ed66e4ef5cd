package cache_test

import (
	"strings"
	"testing"
	"time"

	"github.com/bobbuild/bob/executor/cache"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestRefusedRecords has configs of caches that can't be true.
func TestRefusedRecords(t *testing.T) {
	t.Parallel()
	key, other := digest.FromString("key").String(), digest.FromString("other").String()
	const sha512 = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
	layers := `"layers":[{"diffID":"` + key + `","compression":"gzip"},{"diffID":"` + other + `"}]`
	for name, test := range map[string]struct{ config, want string }{
		"no JSON":               {`{"layers":`, "its config"},
		"a layer less":          {`{"layers":[{"diffID":"` + key + `"}]}`, "has 2 layers, its records tell of 1"},
		"no digest":             {`{"layers":[{"diffID":"../x"},{"diffID":"` + other + `"}]}`, "layers[0].diffID"},
		"another hash":          {`{"layers":[{"diffID":"` + sha512 + `"},{"diffID":"` + other + `"}]}`, "layers[0].diffID"},
		"another compression":   {`{"layers":[{"diffID":"` + key + `","compression":"zstd"},{"diffID":"` + other + `"}]}`, "is not compressed by zstd"},
		"no compression":        {`{"layers":[{"diffID":"` + key + `","compression":"xz"},{"diffID":"` + other + `"}]}`, "want gzip, zstd or uncompressed"},
		"a step beyond":         {`{` + layers + `,"steps":[{"key":"` + key + `","layer":2}]}`, "steps[0].layer 2: there are 2 layers"},
		"a step before":         {`{` + layers + `,"steps":[{"key":"` + key + `","layer":-1}]}`, "steps[0].layer -1"},
		"a step of the base":    {`{` + layers + `,"steps":[{"key":"` + key + `","layer":1}]}`, "no step made it"},
		"a step twice":          {`{` + layers + `,"steps":[{"key":"` + key + `","layer":0},{"key":"` + key + `","layer":0}]}`, "is there twice"},
		"a step without a key":  {`{` + layers + `,"steps":[{"layer":0}]}`, "steps[0].key"},
		"a step over no chain":  {`{` + layers + `,"steps":[{"key":"` + key + `","layer":0,"below":"x"}]}`, "steps[0].below"},
		"a mount beyond":        {`{` + layers + `,"mounts":[{"key":"` + key + `","layer":2}]}`, "mounts[0].layer 2"},
		"a mount without a key": {`{` + layers + `,"mounts":[{"layer":1}]}`, "mounts[0].key"},
		"a link to nothing":     {`{` + layers + `,"links":[{"key":"` + key + `"}]}`, "links[0]"},
	} {
		blobs := make([]ocispec.Descriptor, 2)
		for i := range blobs {
			blobs[i] = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString("blob"), Size: 1}
		}
		if _, _, _, _, err := cache.ReadRecords([]byte(test.config), blobs); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// TestRecall looks for results that are known, damaged and gone.
func TestRecall(t *testing.T) {
	t.Parallel()
	store, err := snapshot.Open(t.TempDir(), snapshot.Options{Snapshotter: snapshot.Copy})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	active, err := store.Prepare(t.Context(), nil)
	if err != nil {
		t.Skip(err)
	}
	snap, err := active.Commit()
	if err != nil {
		t.Fatal(err)
	}
	created := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	key := digest.FromString("key")
	remember := func(key digest.Digest, id string) {
		t.Helper()
		if err := cache.Remember(store, key, id, created); err != nil {
			t.Fatal(err)
		}
	}
	remember(key, snap.ID())
	if got, at := cache.Recall(store, key); got == nil || got.ID() != snap.ID() || !at.Equal(created) {
		t.Errorf("got %v, %s, want %s, %s", got, at, snap.ID(), created)
	}
	gone := digest.FromString("of a snapshot that is gone")
	remember(gone, digest.FromString("no snapshot").Encoded())
	outside := digest.FromString("of a path")
	remember(outside, "../../etc")
	for _, unknown := range []digest.Digest{gone, outside, digest.FromString("never made")} {
		if got, at := cache.Recall(store, unknown); got != nil || !at.IsZero() {
			t.Errorf("got %v, %s for what isn't known", got, at)
		}
	}
	remember(key, "") // what is remembered last counts
	if got, _ := cache.Recall(store, key); got != nil {
		t.Errorf("got %v for what was remembered anew", got)
	}
}
