package image

import (
	"reflect"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// completeHistory returns the history h of an image with n layers such that
// exactly n entries stand for a layer, as the image specification asks, and all
// have a time where one is known. h stays as it is.
//
// Base images that were squashed or made by other tools may break the rule. As
// with BuildKit the first n entries with a layer belong to the layers, later ones
// are marked empty, and missing ones are added at the end.
func completeHistory(h []ocispec.History, n int) []ocispec.History {
	out := slices.Clone(h)
	layers := 0
	for i := range out {
		if layers == n {
			out[i].EmptyLayer = true
		}
		if !out[i].EmptyLayer {
			layers++
		}
	}
	for ; layers < n; layers++ {
		out = append(out, ocispec.History{Comment: "buildkit.exporter.image.v0"})
	}
	fillCreated(out)
	return out
}

// fillCreated gives a time to the entries without one, as BuildKit does. A config
// instruction has the time of the layer made before it in this build. Before the first
// such layer it has the time of that layer. Without a new layer it has the time of the
// base's last layer, so that a build of nothing new gives the same bytes.
func fillCreated(h []ocispec.History) {
	var created *time.Time
	gap := false
	for _, e := range h {
		if e.Created == nil {
			gap = true
			continue
		}
		created = e.Created
		if gap {
			break
		}
	}
	gap = false
	for i := range h {
		switch {
		case h[i].Created == nil:
			gap = true
			h[i].Created = created
		case gap:
			created = h[i].Created
		}
	}
}

// clampHistory sets the time of entries of h that are later than epoch to epoch. The
// entries at the beginning that h has in common with the history of the base keep their
// times, since others made these layers.
func clampHistory(h, base []ocispec.History, epoch time.Time) {
	same := true
	for i := range h {
		same = same && i < len(base) && reflect.DeepEqual(h[i], base[i])
		if !same && (h[i].Created == nil || h[i].Created.After(epoch)) {
			h[i].Created = &epoch
		}
	}
}

// lastCreated returns the last time in h, which is the time of the image. It is nil if h
// has no times.
func lastCreated(h []ocispec.History) *time.Time {
	for _, e := range slices.Backward(h) {
		if e.Created != nil {
			return e.Created
		}
	}
	return nil
}
