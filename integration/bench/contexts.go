package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/bobbuild/bob/integration/harness"
)

// writeBuild makes a directory with a Dockerfile and a context, which fill fills.
func writeBuild(lab *harness.Lab, name, dockerfile string, fill func(context string) error) (dir string, err error) {
	if dir, err = lab.TempDir(name); err != nil {
		return "", err
	}
	context := filepath.Join(dir, "context")
	if err := os.Mkdir(context, 0o755); err != nil {
		return "", err
	}
	if fill != nil {
		if err := fill(context); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("ARG REGISTRY\n"+dockerfile), 0o644); err != nil {
		return "", err
	}
	return dir, lab.User.Own(dir)
}

// arguments returns the build arguments that every build gets.
func arguments(t *harness.Traffic) map[string]string {
	args := map[string]string{"REGISTRY": t.Prefix}
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if value := os.Getenv(name); value != "" {
			args[name] = value
		}
	}
	return args
}

// oneOfMany is one of manyFiles.
const oneOfMany = "dir100/file50.txt"

// manyFiles makes 20,000 files of up to 21 kB in 200 directories, 212 MB of words that
// gzip makes less than half of, the same each time.
func manyFiles(context string) error {
	random := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 4096)
	for i := range words {
		word := make([]byte, 2+random.IntN(9))
		for j := range word {
			word[j] = byte('a' + random.IntN(26))
		}
		words[i] = string(word) + " "
	}
	for d := range 200 {
		dir := filepath.Join(context, fmt.Sprintf("dir%03d", d))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for f := range 100 {
			var body bytes.Buffer
			for size := 64 + random.IntN(21_050); body.Len() < size; {
				body.WriteString(words[random.IntN(len(words))])
			}
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%02d.txt", f)), body.Bytes(), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func helloFile(context string) error {
	text := "#include <stdio.h>\nint main(void) { puts(\"hello\"); }\n"
	return os.WriteFile(filepath.Join(context, "hello.c"), []byte(text), 0o644)
}

// changeFile gives a file of the context an end that it has never had.
func changeFile(path string, n int) error {
	body, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, fmt.Appendf(body, "// changed %d\n", n), 0o644)
}
