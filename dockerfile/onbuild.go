package dockerfile

import (
	"errors"
	"fmt"
	"strings"

	"github.com/bobbuild/bob/dockerfile/internal/position"
	"github.com/bobbuild/bob/dockerfile/internal/spelling"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// storedTriggers returns what the ONBUILD instructions among the commands of a stage
// hold. A stage doesn't pass on the triggers of its own base.
func storedTriggers(commands []command) []string {
	var out []string
	for _, c := range commands {
		if c, ok := c.Command.(*instructions.OnbuildCommand); ok {
			out = append(out, c.Expression)
		}
	}
	return out
}

// triggers makes commands of ONBUILD expressions. The FROM that brings them in is at.
func triggers(expressions []string, at Location) ([]command, error) {
	out := make([]command, 0, len(expressions))
	for _, expression := range expressions {
		c, node, err := parseTrigger(expression)
		if err != nil {
			return nil, position.Locate(fmt.Errorf("ONBUILD trigger %q of the base: %w", expression, position.Unlocated(err)), at)
		}
		out = append(out, command{Command: c, node: node, at: at, trigger: true})
	}
	return out, nil
}

func parseTrigger(expression string) (instructions.Command, *parser.Node, error) {
	src := &position.Text{Lines: splitLines([]byte(expression))}
	if err := checkText(src, []byte(expression)); err != nil {
		return nil, nil, err
	}
	parsed, err := parser.Parse(strings.NewReader(expression))
	if err != nil {
		return nil, nil, err
	}
	if len(parsed.AST.Children) != 1 {
		return nil, nil, errors.New("not a single instruction")
	}
	node := parsed.AST.Children[0]
	// A nil linter would not survive a comment with lint options.
	in, err := instructions.ParseInstructionWithLinter(node, linter.New(&linter.Config{}))
	if err != nil {
		return nil, nil, spelling.Instruction(err, node.Value)
	}
	switch in := in.(type) {
	case *instructions.OnbuildCommand, *instructions.MaintainerCommand:
		return nil, nil, fmt.Errorf("%s isn't allowed as an ONBUILD trigger", strings.ToUpper(node.Value))
	case instructions.Command:
		return in, mountNode(in, node), nil
	default:
		return nil, nil, fmt.Errorf("%s isn't allowed as an ONBUILD trigger", strings.ToUpper(node.Value))
	}
}
