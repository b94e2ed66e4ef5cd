package harness

import "os/exec"

// A MissingError says what this machine lacks for a test.
type MissingError struct{ What string }

func (e *MissingError) Error() string { return "this machine lacks " + e.What }

// Need returns a MissingError unless every program is installed.
func Need(programs ...string) error {
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			return &MissingError{What: "the program " + p + " (make test installs it when it may)"}
		}
	}
	return nil
}
