// Package records keeps small values by a kind and a digest.
package records

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bobbuild/bob/snapshot/internal/durable"
	"github.com/bobbuild/bob/snapshot/internal/pruning"
	"github.com/bobbuild/bob/snapshot/internal/trash"
	"github.com/bobbuild/bob/snapshot/internal/usage"
	"github.com/containers/storage/pkg/regexp"
	"github.com/opencontainers/go-digest"
)

var kindPattern = regexp.Delayed(`^[a-z][a-z0-9-]*-[0-9]+$`)

// Records are the records of a store, which all ID mappings share. Their methods may be
// called concurrently, also in several processes.
type Records struct {
	dir   string // KIND/ALGORITHM/HEX below it are the records
	usage *usage.Usage
	boots *durable.Boots
	bin   *trash.Bin
}

// Of returns the records of the store in the directory dir, which this process uses.
func Of(dir string, u *usage.Usage, b *durable.Boots, bin *trash.Bin) *Records {
	return &Records{dir: filepath.Join(dir, "records"), usage: u, boots: b, bin: bin}
}

// List calls add for each record.
func (r *Records) List(_ context.Context, _ bool, add func(pruning.Entry)) error {
	return pruning.EachFile(r.dir, func(kind fs.DirEntry) error {
		return pruning.EachFile(filepath.Join(r.dir, kind.Name()), func(algorithm fs.DirEntry) error {
			dir := filepath.Join(r.dir, kind.Name(), algorithm.Name())
			return pruning.EachFile(dir, func(e fs.DirEntry) error {
				id := kind.Name() + "/" + algorithm.Name() + ":" + e.Name()
				return pruning.AddFile(add, pruning.Item{Kind: pruning.Record, ID: id}, filepath.Join(dir, e.Name()))
			})
		})
	})
}

// Remove removes the record e unless it has been used since it was listed.
func (r *Records) Remove(e pruning.Entry) (gone bool, err error) { return e.Throw(r.usage, r.bin) }

func (r *Records) path(kind string, key digest.Digest) (string, error) {
	if !kindPattern.MatchString(kind) {
		return "", fmt.Errorf("invalid kind of record %q: want a name, a hyphen and the version", kind)
	}
	if err := key.Validate(); err != nil {
		return "", fmt.Errorf("key of record %q: %w", key, err)
	}
	return filepath.Join(r.dir, kind, key.Algorithm().String(), key.Encoded()), nil
}

// Put stores value under kind and key, in place of any value there. Readers in
// any process see the old value or the new one, never a part.
//
// A kind is lower-case letters, digits and hyphens, and its version: "-" and a number.
// Whoever changes how values of a kind are computed or written counts it up, so that
// no release reads what another one meant differently.
func (r *Records) Put(kind string, key digest.Digest, value []byte) error {
	path, err := r.path(kind, key)
	if err == nil {
		err = r.usage.WriteFile(path, r.boots.Seal(value))
	}
	if err != nil {
		return fmt.Errorf("put record: %w", err)
	}
	return nil
}

// Mark marks the value under kind and key as used. The error of one that isn't there is
// fs.ErrNotExist.
func (r *Records) Mark(kind string, key digest.Digest) error {
	path, err := r.path(kind, key)
	if err != nil {
		return err
	}
	return r.usage.Mark(path)
}

// Get returns the value under kind and key. The error of one that isn't there, is
// damaged or may have been lost in a power failure is fs.ErrNotExist.
func (r *Records) Get(kind string, key digest.Digest) ([]byte, error) {
	path, err := r.path(kind, key)
	if err != nil {
		return nil, fmt.Errorf("read record: %w", err)
	}
	if err = r.usage.Mark(path); err == nil {
		var b []byte
		if b, err = os.ReadFile(path); err == nil {
			if value, ok := r.boots.Unseal(b); ok {
				return value, nil
			}
			err = &fs.PathError{Op: "read", Path: path, Err: fs.ErrNotExist}
		}
	}
	return nil, fmt.Errorf("read record: %w", err)
}
