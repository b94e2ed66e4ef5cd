package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// writeJSON writes each run, with what is known of the machine. Times are nanoseconds.
func writeJSON(name string, records []record) error {
	body, err := json.MarshalIndent(struct {
		Kernel, Arch string
		Processors   int
		Runs         []record
	}{kernel(), runtime.GOARCH, runtime.NumCPU(), records}, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(body, '\n'), 0o644)
}

// writeBenchmarks writes each run as a line of the Go benchmark format:
// https://go.dev/design/14313-benchmark-format.
func writeBenchmarks(name string, records []record) error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "goos: %s\ngoarch: %s\nkernel: %s\n", runtime.GOOS, runtime.GOARCH, kernel())
	for _, r := range records {
		if r.Cost == nil {
			continue
		}
		builder := strings.NewReplacer(" ", "-", "'", "").Replace(r.Builder)
		fmt.Fprintf(&text, "BenchmarkBuild/%s/%s/%s 1 %d ns/op %d cpu-ns/op %d peak-B %d written-B/op %d kept-B"+
			" %d requests/op %d sent-B/op %d received-B/op\n",
			r.Workload, r.Variant, builder, r.Cost.Wall, r.Cost.CPU, r.Cost.Peak, r.Cost.Written, r.Cost.Kept, r.Cost.Requests, r.Cost.Sent, r.Cost.Received)
	}
	return os.WriteFile(name, text.Bytes(), 0o644)
}

func kernel() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(name.Release[:])
}
