package oci_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/bobbuild/bob/registry/oci"
)

// TestLostBlob finds the blob that is lost however deep its error is, and no other.
func TestLostBlob(t *testing.T) {
	t.Parallel()
	read := func(op string, cause error) error {
		return &oci.Error{Op: op, Subject: "oci-layout://dir", Digest: "sha256:x", Err: cause}
	}
	lost := read(oci.OpPullBlob, fmt.Errorf("%w: no blob", oci.ErrNotFound))
	for name, tt := range map[string]struct {
		err error
		why error // nil: no blob is lost
	}{
		"not there":        {lost, lost},
		"in another":       {fmt.Errorf("push: %w", &oci.Error{Op: "push blob", Digest: "sha256:y", Err: lost}), lost},
		"another reason":   {read(oci.OpPullBlob, errors.New("disk full")), nil},
		"not a blob":       {read(oci.OpPullManifest, oci.ErrNotFound), nil},
		"no error of ours": {oci.ErrCorrupt, nil},
		"no error":         {nil, nil},
	} {
		d, why := oci.LostBlob(tt.err)
		if why != tt.why || (d == "sha256:x") != (tt.why != nil) { //nolint:errorlint // it is the very error
			t.Errorf("%s: %q, %v", name, d, why)
		}
	}
	damaged := oci.Spoiled("2 bytes")
	if d, _ := oci.LostBlob(read(oci.OpPullBlob, damaged)); d != "sha256:x" || !errors.Is(damaged, oci.ErrCorrupt) {
		t.Errorf("damaged: %q", d)
	}
	if got, want := lost.Error(), "pull blob sha256:x of oci-layout://dir: not found: no blob"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
