package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// A workload is what is built: steps on a base image, and the context's files.
type workload struct {
	name, base, steps string
	fill              func(context string) error
	// known has each build find the state of one before, which isn't measured and to
	// which change, if it isn't nil, makes a difference. buildah keeps layers then.
	known  bool
	change func(context string, n int) error
}

var workloads = []workload{
	{
		name: "a: five trivial RUN", base: "busybox",
		steps: "RUN echo 1 > /1\nRUN echo 2 > /2\nRUN echo 3 > /3\nRUN echo 4 > /4\nRUN echo 5 > /5\n",
	},
	{name: "b: COPY of 20,000 small files", base: "busybox", steps: "COPY . /files/\n", fill: smallFiles},
	{
		name: "c: RUN writes 1 GiB", base: "busybox",
		steps: "RUN head -c 536870912 /dev/urandom > /random && yes 'half of it compresses well' | head -c 536870912 > /text\n",
	},
	{
		name: "d: apt-get install", base: "debian",
		steps: "RUN apt-get update && apt-get install -y --no-install-recommends git vim-nox && rm -rf /var/lib/apt/lists/*\n",
	},
	{name: "e: rebuild, 30 steps and 20,000 files, all known", base: "busybox", steps: thirtySteps(), fill: smallFiles, known: true},
	{
		name: "f: the same, one file changed", base: "busybox", steps: thirtySteps(), fill: smallFiles, known: true,
		change: func(context string, n int) error {
			return os.WriteFile(filepath.Join(context, "dir100", "file50.txt"), fmt.Appendf(nil, "changed %d\n", n), 0o644)
		},
	},
}

// thirtySteps installs, copies a few files and then all, and works on those.
func thirtySteps() string {
	var steps strings.Builder
	for n := range 14 {
		fmt.Fprintf(&steps, "RUN echo installed > /installed-%d\n", n)
	}
	steps.WriteString("COPY dir000 /few/\nCOPY . /files/\n")
	for n := range 14 {
		fmt.Fprintf(&steps, "RUN cp /files/dir%03d/file00.txt /made-%d\n", n, n)
	}
	return steps.String()
}

// smallFiles makes 20,000 files of up to 4 KiB in 200 directories, the same
// each time.
func smallFiles(context string) error {
	random := rand.New(rand.NewPCG(1, 2))
	for d := range 200 {
		dir := filepath.Join(context, fmt.Sprintf("dir%03d", d))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for f := range 100 {
			body := make([]byte, 64+random.IntN(4032))
			for i := range body {
				body[i] = byte('a' + random.IntN(26))
			}
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%02d.txt", f)), body, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
