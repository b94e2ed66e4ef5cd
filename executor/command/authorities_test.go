package command_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/bobbuild/bob/executor/command"
	"github.com/bobbuild/bob/snapshot/bounded"
)

// The authorities of an image are read whole or not at all.
func TestSystemBundle(t *testing.T) {
	root := t.TempDir()
	const begin = "-----BEGIN CERTIFICATE-----\n"
	if data, err := command.SystemBundle(t.Context(), root); err != nil || data != nil {
		t.Errorf("of an image without any: %q, %v", data, err)
	}
	path := filepath.Join(root, "etc/ssl/certs/ca-certificates.crt")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	largest := append([]byte(begin), bytes.Repeat([]byte{'\n'}, command.MaxBundleSize-len(begin))...)
	if err := os.WriteFile(path, largest, 0o644); err != nil {
		t.Fatal(err)
	}
	if data, err := command.SystemBundle(t.Context(), root); err != nil || !bytes.Equal(data, largest) {
		t.Errorf("%d bytes of %d, %v", len(data), len(largest), err)
	}
	if err := os.WriteFile(path, append(largest, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	if data, err := command.SystemBundle(t.Context(), root); !errors.As(err, new(*bounded.LimitError)) || data != nil {
		t.Errorf("of a file that is too large: %d bytes, %v", len(data), err)
	}
}
