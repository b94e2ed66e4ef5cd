package main

import (
	"fmt"
	"strings"
)

// A variant is what a builder finds when it begins.
type variant string

const (
	cold      variant = "cold"      // nothing, on a fresh file system
	unchanged variant = "unchanged" // its own state of the same build
	changed   variant = "changed"   // the same, with another content of one file
	imported  variant = "import"    // nothing but a cache in the registry
)

// A workload is what is built.
type workload struct {
	name, title string
	bases       []string // images that the Dockerfile finds below $REGISTRY
	dockerfile  string
	fill        func(context string) error // nil: an empty context
	change      string                     // the file of the context that the variant changes
	variants    []variant
	targets     []string // stages that are built one after the other; nil: the last one
	atOnce      int      // how many builds run at the same time, if more than one; each has another $N
	floor       []string // the commands that the floor runs instead of the RUNs; nil: there is no floor
}

var workloads = []workload{
	{
		name: "W1", title: "busybox, five trivial RUN", bases: []string{"busybox"},
		dockerfile: "FROM $REGISTRY/busybox\n" + runs(trivial(5)),
		variants:   []variant{cold, unchanged}, floor: trivial(5),
	},
	{
		name: "W2", title: "COPY of 20,000 files (212 MB), RUN", bases: []string{"busybox"},
		dockerfile: "FROM $REGISTRY/busybox\nCOPY . /files/\nRUN " + count + "\n",
		fill:       manyFiles, change: oneOfMany, variants: []variant{cold, unchanged, changed}, floor: []string{"true"},
	},
	{
		name: "W3", title: "RUN writes 1 GiB, half compressible", bases: []string{"busybox"},
		dockerfile: "FROM $REGISTRY/busybox\n" + runs([]string{gibibyte}),
		variants:   []variant{cold}, floor: []string{gibibyte},
	},
	{
		name: "W4", title: "apt-get install git curl build-essential", bases: []string{"debian"},
		dockerfile: "FROM $REGISTRY/debian\nRUN apt-get update && apt-get install -y --no-install-recommends " +
			"git curl build-essential && rm -rf /var/lib/apt/lists/*\nCOPY hello.c /src/\n",
		fill: helloFile, change: "hello.c", variants: []variant{cold, unchanged, changed},
	},
	{
		name: "W5", title: "four stages, sleep 2 and 20 MB, COPY --from", bases: []string{"busybox"},
		dockerfile: fourStages(), variants: []variant{cold, unchanged},
	},
	{
		name: "W6", title: "base of 450 MB, COPY, RUN cc", bases: []string{"toolchain"},
		dockerfile: "FROM $REGISTRY/toolchain\nCOPY hello.c /src/\nRUN cc -o /hello /src/hello.c\n",
		fill:       helloFile, change: "hello.c", variants: []variant{cold, unchanged, changed},
		floor: []string{"echo 'int main(void) { return 0; }' > /hello.c && cc -o /hello /hello.c"},
	},
	{
		name: "W7", title: "the same base, COPY and metadata", bases: []string{"toolchain"},
		dockerfile: "FROM $REGISTRY/toolchain\nCOPY hello.c /src/\nENV A=b\nLABEL c=d\nCMD [\"/hello\"]\n",
		fill:       helloFile, variants: []variant{cold, unchanged}, floor: []string{},
	},
	{
		name: "W7-link", title: "the same with COPY --link", bases: []string{"toolchain"},
		dockerfile: "FROM $REGISTRY/toolchain\nCOPY --link hello.c /src/\nENV A=b\nLABEL c=d\nCMD [\"/hello\"]\n",
		fill:       helloFile, variants: []variant{cold}, floor: []string{},
	},
	{
		name: "W8", title: "100 trivial RUN", bases: []string{"busybox"},
		dockerfile: "FROM $REGISTRY/busybox\n" + runs(trivial(100)),
		variants:   []variant{cold, unchanged}, floor: trivial(100),
	},
	{
		name: "W9", title: "eight builds like W2 at once", bases: []string{"busybox"},
		dockerfile: "FROM $REGISTRY/busybox\nARG N\nRUN echo $N > /n\nCOPY . /files/\nRUN " + count + "\n",
		fill:       manyFiles, variants: []variant{cold}, atOnce: 8,
	},
	// W10, a layer of 5 GB through bob proxy, is BenchmarkProxy of the integration tests.
	{
		name: "W11", title: "12 targets that share stages", bases: []string{"busybox"},
		dockerfile: twelveTargets(), targets: targetNames(12), variants: []variant{cold},
	},
	{
		name: "W12", title: "30 steps and 20,000 files", bases: []string{"busybox"},
		dockerfile: "FROM $REGISTRY/busybox\n" + runs(trivial(14)) + "COPY dir000 /few/\nCOPY . /files/\n" + workOn(14),
		fill:       manyFiles, change: oneOfMany, variants: []variant{unchanged, changed},
	},
	{
		name: "W13", title: "import of a cache of 200 steps", bases: []string{"busybox"},
		dockerfile: "FROM $REGISTRY/busybox\n" + runs(trivial(200)), variants: []variant{imported},
	},
}

const (
	count    = "find /files -type f | wc -l > /count"
	gibibyte = "head -c 536870912 /dev/urandom > /random && yes 'half of it compresses well' | head -c 536870912 > /text"
)

func trivial(n int) []string {
	var commands []string
	for i := range n {
		commands = append(commands, fmt.Sprintf("echo %d > /file-%d", i, i))
	}
	return commands
}

func runs(commands []string) string {
	return "RUN " + strings.Join(commands, "\nRUN ") + "\n"
}

func workOn(n int) string {
	var commands []string
	for i := range n {
		commands = append(commands, fmt.Sprintf("cp /files/dir%03d/file00.txt /made-%d", i, i))
	}
	return runs(commands)
}

func fourStages() string {
	var stages, copies strings.Builder
	for i := range 4 {
		fmt.Fprintf(&stages, "FROM $REGISTRY/busybox AS s%d\nRUN sleep 2 && head -c 20971520 /dev/urandom > /part-%d\n", i, i)
		fmt.Fprintf(&copies, "COPY --from=s%d /part-%d /\n", i, i)
	}
	return stages.String() + "FROM $REGISTRY/busybox\n" + copies.String()
}

// twelveTargets has twelve stages on three that share one.
func twelveTargets() string {
	var text strings.Builder
	text.WriteString("FROM $REGISTRY/busybox AS shared\n" + runs(trivial(5)))
	for i := range 3 {
		fmt.Fprintf(&text, "FROM shared AS middle%d\nRUN head -c 5242880 /dev/urandom > /middle\n", i)
	}
	for i, name := range targetNames(12) {
		fmt.Fprintf(&text, "FROM middle%d AS %s\nRUN echo %s > /own\nCOPY --from=middle%d /middle /other\n", i%3, name, name, (i+1)%3)
	}
	return text.String()
}

func targetNames(n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("target%d", i))
	}
	return names
}
