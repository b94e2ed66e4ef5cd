package snapshot

import (
	"context"

	"github.com/bobbuild/bob/snapshot/internal/content"
	"github.com/bobbuild/bob/snapshot/internal/layers"
)

// unpacked finds snapshots that all lie on the disk.
type unpacked struct{ *part }

func notElsewhere(_ string, err error) (string, error) { return "", err }

func (u unpacked) layers(id string) ([]string, error) { return u.find(id, notElsewhere) }

func (u unpacked) parent(id string) (string, error) {
	m, err := u.snapshots.Meta(id)
	return m.Parent, err
}

func (u unpacked) stack(id string) (*layers.Stack, error) {
	m, err := u.snapshots.Meta(id)
	if err != nil || m.Parent == "" {
		return layers.New(nil, u.owners, u.marks), err
	}
	below, err := u.layers(m.Parent)
	return layers.New(below, u.owners, u.marks), err
}

// offer does nothing: nothing is left to be unpacked later.
func (unpacked) offer(string, []content.Layer) {}

func (u unpacked) unpack(ctx context.Context, parent string, all []content.Layer, jobs int) (string, error) {
	return u.unpackLayers(ctx, u, parent, all, jobs)
}

func (u unpacked) has(id string) error {
	_, err := u.layers(id)
	return err
}
