package filecopy_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/bobbuild/bob/executor/filecopy"
)

// COPY --chmod=0755 *.sh bin/ /usr/local/bin/, with a .dockerignore.
func Example() {
	dir, err := os.MkdirTemp("", "filecopy")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	if err := example(dir); err != nil {
		fmt.Println(err)
	}
	// Output:
	// select "missing.sh": not found
	// -rwxr-xr-x run.sh
}

func example(dir string) error {
	context, root := filepath.Join(dir, "context"), filepath.Join(dir, "root")
	for _, d := range []string{context, root} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"run.sh", "debug.sh"} {
		if err := os.WriteFile(filepath.Join(context, name), []byte("#!/bin/sh\n"), 0o644); err != nil {
			return err
		}
	}
	return copyScripts(context, root)
}

func copyScripts(dir, root string) error {
	ctx := context.Background()
	ignore, err := filecopy.ReadIgnore(strings.NewReader("debug*\n"))
	if err != nil {
		return err
	}
	tree, err := filecopy.OpenDir(dir, ignore)
	if err != nil {
		return err
	}
	defer tree.Close()
	if _, err := tree.Select(ctx, filecopy.Source{Path: "missing.sh"}); err != nil {
		fmt.Println("select", err)
	}
	selection, err := tree.Select(ctx, filecopy.Source{Path: "*.sh"})
	if err != nil {
		return err
	}
	if _, err := selection.Digest(ctx); err != nil { // part of the cache key
		return err
	}
	mode, err := filecopy.ParseChmod("0755")
	if err != nil {
		return err
	}
	owner := &filecopy.Owner{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	err = selection.CopyTo(ctx, root, "/usr/local/bin/", filecopy.Options{Owner: owner, Mode: mode})
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(root, "usr/local/bin"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Println(fi.Mode(), e.Name())
	}
	return nil
}
