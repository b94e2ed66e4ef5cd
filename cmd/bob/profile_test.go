package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestProfiles(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	f := profileFlags{cpu: path("cpu"), memory: path("memory"), trace: path("trace")}
	stop, err := f.start()
	if err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cpu", "memory", "trace"} {
		if fi, err := os.Stat(path(name)); err != nil || fi.Size() == 0 {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
	f.memory = path("none/memory")
	if _, err := f.start(); err == nil || !strings.Contains(err.Error(), "none/memory") {
		t.Errorf("%v, want an error about the file", err)
	}
	f.memory = ""
	if stop, err = f.start(); err != nil { // what was begun has ended
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestHiddenFlags(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"build", "--help"}, strings.NewReader(""), &out, &out); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "profile") || !strings.Contains(out.String(), "--tag") {
		t.Errorf("usage shows flags for those who work on bob:\n%s", out.String())
	}
}
