package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bobbuild/bob/executor/recipe"
)

// Names of inputs that explanations treat in their own way.
const (
	Variable = "variable " // begins the names of variables
	Order    = "order of the variables"

	inputText  = "instruction"
	inputBelow = "below"
)

// differences says which inputs differ between old and now. below is what the step lies
// on.
func differences(old, now []recipe.Input, below string) (changes []string) {
	was, is := byName(old), byName(now)
	sameText := was[inputText].Value == is[inputText].Value
	sameVars := true
	for _, in := range now {
		before, known := was[in.Name]
		switch {
		case in.Name == inputText, in.Name == inputBelow, in.Name == Order:
		case known && (before.Value == in.Value || before.Value == "" || in.Value == ""):
		case strings.HasPrefix(in.Name, Variable) && !known:
			changes, sameVars = append(changes, in.Name+" is new"), false
		case known || sameText:
			changes = append(changes, in.Name+" changed")
		}
	}
	for _, in := range old {
		if _, still := is[in.Name]; !still && strings.HasPrefix(in.Name, Variable) {
			changes, sameVars = append(changes, in.Name+" is gone"), false
		}
	}
	order, known := was[Order]
	if now, still := is[Order]; known && still && sameVars && order != now {
		changes = append(changes, Order+" changed")
	}
	if !sameText && len(changes) == 0 {
		changes = append(changes, inputText+" changed")
	}
	return append(changes, belowChange(was[inputBelow].Value, is[inputBelow].Value, below)...)
}

func byName(all []recipe.Input) map[string]recipe.Input {
	m := make(map[string]recipe.Input, len(all))
	for _, in := range all {
		m[in.Name] = in
	}
	return m
}

// belowChange says that a step lies on something else. A value is a key and, of an
// image, a digest.
func belowChange(old, now, below string) []string {
	oldKey, oldImage, _ := strings.Cut(old, " ")
	key, image, _ := strings.Cut(now, " ")
	switch {
	case oldKey == key:
		return nil
	case oldImage != "" && image != "":
		return []string{fmt.Sprintf("%s changed from %s to %s", below, oldImage, image)}
	}
	return []string{below + " changed"}
}

// maxChanges bounds the changes that one explanation names.
const maxChanges = 5

func list(changes []string) string {
	if more := len(changes) - maxChanges; more > 0 {
		changes = append(slices.Clip(changes[:maxChanges]), fmt.Sprintf("and %d more", more))
	}
	return strings.Join(changes, ", ")
}
