package command_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobbuild/bob/executor/command"
	"golang.org/x/sys/unix"
)

// TestSecretsAreBounded: no file is too long to say so, and none is waited for for ever.
func TestSecretsAreBounded(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]command.Secret{
		"file": {File: "/dev/zero"}, "data": {Data: make([]byte, command.MaxSecretSize+1)},
	} {
		if _, err := s.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "larger than the 500 KiB allowed") {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (command.Secret{File: fifo}).Read(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("fifo: %v", err)
	}
}
