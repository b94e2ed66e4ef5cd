// Package spelling finds what somebody meant who wrote a name that doesn't exist.
package spelling

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	dfcommand "github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// DidYouMean returns " (did you mean x?)" for the option that is at most two
// mistakes away from word, the first of the nearest, or "". The library's own
// search takes any of the nearest, another each time, and takes two swapped
// letters for two mistakes.
func DidYouMean(word string, options []string) string {
	best, distance := "", 3
	for _, option := range options {
		if d := mistakes(word, option); d > 0 && d < distance {
			best, distance = option, d
		}
	}
	if best == "" {
		return ""
	}
	return " (did you mean " + best + "?)"
}

// mistakes returns the distance of two words in letters added, left out,
// replaced, or swapped with their neighbour (optimal string alignment).
func mistakes(a, b string) int {
	if len(a)-len(b) > 2 || len(b)-len(a) > 2 {
		return 3
	}
	var before, row []int
	next := make([]int, len(b)+1)
	for j := range next {
		next[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, row = row, next
		next = make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
	}
	return next[len(b)]
}

// Instruction gives the error of BuildKit for an unknown instruction, or for an unknown
// flag of the instruction, its suggestion. It returns other errors as they are.
func Instruction(err error, instruction string) error {
	if unknown, ok := errors.AsType[*instructions.UnknownInstructionError](err); ok {
		word, names := unknown.Instruction, slices.Sorted(maps.Keys(dfcommand.Commands))
		if word != strings.ToLower(word) {
			word = strings.ToUpper(word)
			for i, name := range names {
				names[i] = strings.ToUpper(name)
			}
		}
		return fmt.Errorf("%w%s", unknown, DidYouMean(word, names))
	}
	if names := flags[strings.ToLower(instruction)]; names != nil {
		return among(err, `unknown flag: --(\S+)`, names)
	}
	return err
}

// Mount does the same for the type or sharing mode of a mount.
func Mount(err error) error {
	err = among(err, `unsupported mount type "(.*)"`, []string{"bind", "cache", "secret", "ssh", "tmpfs"})
	return among(err, `unsupported sharing value "(.*)"`, []string{"locked", "private", "shared"})
}

// among makes the suggestion anew in an error whose message matches.
func among(err error, message string, options []string) error {
	m := regexp.MustCompile(message).FindStringSubmatch(err.Error())
	if m == nil {
		return err
	}
	return errors.New(m[0] + DidYouMean(m[1], options))
}

// flags are the options of each instruction in sorted order.
var flags = map[string][]string{
	dfcommand.Add:         {"checksum", "chmod", "chown", "exclude", "keep-git-dir", "link", "unpack"},
	dfcommand.Copy:        {"chmod", "chown", "exclude", "from", "link", "parents"},
	dfcommand.From:        {"platform"},
	dfcommand.Healthcheck: {"interval", "retries", "start-interval", "start-period", "timeout"},
	dfcommand.Run:         {"device", "mount", "network", "security"},
}
