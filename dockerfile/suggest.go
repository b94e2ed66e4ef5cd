package dockerfile

import (
	"errors"
	"fmt"
	"strings"

	dfcommand "github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// didYouMean returns " (did you mean x?)" for the option that is at most two
// mistakes away from word, the first of the nearest, or "". The library's own
// search takes any of the nearest, another each time, and takes two swapped
// letters for two mistakes.
func didYouMean(word string, options []string) string {
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

// suggestInstruction gives the error of an unknown instruction its suggestion,
// and returns other errors as they are.
func suggestInstruction(err error) error {
	unknown, ok := errors.AsType[*instructions.UnknownInstructionError](err)
	if !ok {
		return err
	}
	word, names := unknown.Instruction, sortedKeys(dfcommand.Commands)
	if word != strings.ToLower(word) {
		word = strings.ToUpper(word)
		for i, name := range names {
			names[i] = strings.ToUpper(name)
		}
	}
	return fmt.Errorf("%w%s", unknown, didYouMean(word, names))
}
