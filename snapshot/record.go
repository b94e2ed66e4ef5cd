package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/opencontainers/go-digest"
)

var kindPattern = regexp.MustCompile(`^[a-z][a-z0-9-]*-[0-9]+$`)

func (s *Store) recordPath(kind string, key digest.Digest) (string, error) {
	if !kindPattern.MatchString(kind) {
		return "", fmt.Errorf("invalid kind of record %q: want a name, a hyphen and the version", kind)
	}
	if err := key.Validate(); err != nil {
		return "", fmt.Errorf("key of record %q: %w", key, err)
	}
	return filepath.Join(s.dir, "records", kind, key.Algorithm().String(), key.Encoded()), nil
}

// PutRecord stores value under kind and key, in place of any value there. Readers in
// any process see the old value or the new one, never a part.
//
// A kind is lower-case letters, digits and hyphens, and its version: "-" and a number.
// Whoever changes how values of a kind are computed or written counts it up, so that
// no release reads what another one meant differently.
func (s *Store) PutRecord(kind string, key digest.Digest, value []byte) error {
	path, err := s.recordPath(kind, key)
	if err == nil {
		err = s.writeFile(path, seal(stampNow(s.boot), value))
	}
	if err != nil {
		return fmt.Errorf("put record: %w", err)
	}
	return nil
}

// writeFile writes value to a temporary file and renames it to path.
func (s *Store) writeFile(path string, value []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.tmp.Path, "record-*")
	if err != nil {
		return err
	}
	_, err = f.Write(value)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = s.touch(f.Name())
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// Record returns the value under kind and key. The error of one that isn't there, is
// damaged or may have been lost in a power failure is fs.ErrNotExist.
func (s *Store) Record(kind string, key digest.Digest) ([]byte, error) {
	path, err := s.recordPath(kind, key)
	if err != nil {
		return nil, fmt.Errorf("read record: %w", err)
	}
	if err = s.use(path); err == nil {
		var b []byte
		if b, err = os.ReadFile(path); err == nil {
			if st, value, serr := unseal(b); serr == nil && s.holds(st) {
				return value, nil
			}
			err = &fs.PathError{Op: "read", Path: path, Err: fs.ErrNotExist}
		}
	}
	return nil, fmt.Errorf("read record: %w", err)
}
