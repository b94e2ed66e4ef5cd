package image_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/bobbuild/bob/executor/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func at(hour int) *time.Time {
	t := time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC)
	return &t
}

func times(h []ocispec.History) []*time.Time {
	var out []*time.Time
	for _, e := range h {
		out = append(out, e.Created)
	}
	return out
}

func TestHistoryTimes(t *testing.T) {
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
				h[i] = ocispec.History{Created: c, EmptyLayer: true}
			}
			got := image.CompleteHistory(h, 0)
			if !reflect.DeepEqual(times(got), tt.want) {
				t.Errorf("history: got %v, want %v", times(got), tt.want)
			}
			if created := image.LastCreated(got); !reflect.DeepEqual(created, tt.created) {
				t.Errorf("image: got %v, want %v", created, tt.created)
			}
			if !reflect.DeepEqual(times(h), tt.in) && len(h) > 0 {
				t.Errorf("the history given became %v", times(h))
			}
		})
	}
}

// TestHistoryAgreesWithLayers: bases whose history is longer or shorter than
// their list of layers make images that are right nevertheless.
func TestHistoryAgreesWithLayers(t *testing.T) {
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
		{"no layer", []ocispec.History{layer, empty}, 0, []bool{true, true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []bool
			complete := image.CompleteHistory(tt.in, tt.layers)
			for _, e := range complete {
				got = append(got, e.EmptyLayer)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("empty layers: got %v, want %v", got, tt.want)
			}
			for _, e := range complete[len(tt.in):] {
				if e.Comment != "buildkit.exporter.image.v0" {
					t.Errorf("comment of an added entry: %q", e.Comment)
				}
			}
		})
	}
}

// TestClampHistory: what this build did is at most as late as the epoch, what
// came with the base keeps its time.
func TestClampHistory(t *testing.T) {
	t.Parallel()
	entry := func(by string, created *time.Time) ocispec.History {
		return ocispec.History{CreatedBy: by, Created: created}
	}
	base := []ocispec.History{entry("a", at(1)), entry("b", at(9))}
	for _, tt := range []struct {
		name string
		in   []ocispec.History
		want []*time.Time
	}{
		{"nothing new", base, []*time.Time{at(1), at(9)}},
		{"new ones", append(slices.Clone(base), entry("c", at(2)), entry("d", at(9)), entry("e", nil)), []*time.Time{at(1), at(9), at(2), at(5), at(5)}},
		{"the base's entry was changed", []ocispec.History{entry("a", at(8)), entry("b", at(9))}, []*time.Time{at(5), at(5)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := slices.Clone(tt.in)
			image.ClampHistory(h, base, *at(5))
			if !reflect.DeepEqual(times(h), tt.want) {
				t.Errorf("got %v, want %v", times(h), tt.want)
			}
		})
	}
}
