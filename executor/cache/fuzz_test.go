package cache_test

import (
	"encoding/json"
	"testing"

	"github.com/bobbuild/bob/executor/cache"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzCacheRecords reads what others may have written as the config of a cache. What is
// taken is read again as the same.
func FuzzCacheRecords(f *testing.F) {
	one, other := digest.FromString("one").String(), digest.FromString("other").String()
	whole := `{"packing":"1","layers":[{"diffID":"` + one + `","compression":"gzip"},{"diffID":"` + other + `"}],` +
		`"steps":[{"key":"` + one + `","layer":0,"below":"` + other + `","created":"2024-01-02T03:04:05Z"}],` +
		`"links":[{"key":"` + one + `","to":"` + one + `"}],` +
		`"mounts":[{"id":"/c","key":"` + other + `","layer":1,"owner":{"UID":1,"GID":2,"Mode":511}}]}`
	for _, config := range []string{
		whole, "", "null", "{}", "[]", `{"layers":[]}`, `{"layers":null,"steps":[{"layer":9223372036854775807}]}`,
		`{"layers":[{"diffID":"sha256:../../x"}]}`, `{"epoch":"9999-99-99T00:00:00Z"}`,
	} {
		f.Add([]byte(config), 2, false)
		f.Add([]byte(config), 2, true)
	}
	f.Fuzz(func(t *testing.T, config []byte, n int, zstd bool) {
		layers := make([]ocispec.Descriptor, max(0, n)%5)
		for i := range layers {
			layers[i] = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString("blob"), Size: 1}
			if zstd {
				layers[i].MediaType = ocispec.MediaTypeImageLayerZstd
			}
		}
		rec, steps, links, mounts, err := cache.ReadRecords(config, layers)
		if err != nil {
			return
		}
		again, err := json.Marshal(rec)
		if err != nil {
			t.Fatalf("what was taken can't be written: %v", err)
		}
		_, steps2, links2, mounts2, err := cache.ReadRecords(again, layers)
		if err != nil || steps2 != steps || links2 != links || mounts2 != mounts {
			t.Errorf("%d steps, %d links and %d mounts; again %d, %d and %d, %v", steps, links, mounts, steps2, links2, mounts2, err)
		}
	})
}
