package dockerfile

import (
	"fmt"

	"github.com/bobbuild/bob/dockerfile/internal/ports"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// maxPorts is how many ports one EXPOSE may name: every one with each of the
// three protocols.
const maxPorts = 3 << 16

// expose adds ports to the configuration.
func (st *state) expose(c *instructions.ExposeCommand) (string, error) {
	var all []string
	for _, word := range c.Ports {
		words, err := st.lex.Words(word, &st.env)
		if err != nil {
			return "", err
		}
		for _, w := range words {
			st.checker.Port(w)
			more, err := ports.Parse(w)
			if err != nil {
				return "", err
			}
			if all = append(all, more...); len(all) > maxPorts {
				return "", fmt.Errorf("EXPOSE of more than %d ports", maxPorts)
			}
		}
	}
	config := &st.image.Config
	if config.ExposedPorts == nil {
		config.ExposedPorts = map[string]struct{}{}
	}
	for _, p := range all {
		config.ExposedPorts[p] = struct{}{}
	}
	return fmt.Sprintf("EXPOSE %v", all), nil
}
