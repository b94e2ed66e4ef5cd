package executor_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/bobbuild/bob/executor"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func at(hour int) *time.Time {
	t := time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC)
	return &t
}

func TestFillCreated(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		in      []*time.Time
		want    []*time.Time
		created *time.Time
	}{
		{"nothing at all", nil, nil, nil},
		{"no time known", []*time.Time{nil, nil}, []*time.Time{nil, nil}, nil},
		{"config over a base keeps the base's time", []*time.Time{at(1), at(2), nil}, []*time.Time{at(1), at(2), at(2)}, at(2)},
		{"config before the first layer takes its time", []*time.Time{at(1), nil, at(5)}, []*time.Time{at(1), at(5), at(5)}, at(5)},
		{"config behind a layer takes that one's", []*time.Time{nil, at(5), nil, at(6), nil}, []*time.Time{at(5), at(5), at(5), at(6), at(6)}, at(6)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := make([]ocispec.History, len(tt.in))
			for i, c := range tt.in {
				h[i].Created = c
			}
			created := executor.FillCreated(h)
			var got []*time.Time
			for _, e := range h {
				got = append(got, e.Created)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("history: got %v, want %v", got, tt.want)
			}
			if !reflect.DeepEqual(created, tt.created) {
				t.Errorf("image: got %v, want %v", created, tt.created)
			}
		})
	}
}

func TestAlignHistory(t *testing.T) {
	t.Parallel()
	layer, empty := ocispec.History{}, ocispec.History{EmptyLayer: true}
	for _, tt := range []struct {
		name   string
		in     []ocispec.History
		layers int
		want   []bool // empty
	}{
		{"as it should be", []ocispec.History{layer, empty, layer}, 2, []bool{false, true, false}},
		{"squashed: more entries than layers", []ocispec.History{layer, layer, layer}, 1, []bool{false, true, true}},
		{"no history", nil, 2, []bool{false, false}},
		{"too little history", []ocispec.History{empty, layer}, 3, []bool{true, false, false, false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []bool
			for _, e := range executor.AlignHistory(tt.in, tt.layers, at(1)) {
				got = append(got, e.EmptyLayer)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("empty layers: got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestMediaTypesAreNotMixed(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"application/vnd.docker.image.rootfs.diff.tar.gzip": ocispec.MediaTypeImageLayerGzip,
		"application/vnd.docker.image.rootfs.diff.tar":      ocispec.MediaTypeImageLayer,
		ocispec.MediaTypeImageLayerZstd:                     ocispec.MediaTypeImageLayerZstd,
	} {
		if got := executor.OCIMediaType(in); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}
