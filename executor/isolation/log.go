package isolation

import (
	"io"
	"strings"

	"github.com/sirupsen/logrus"
)

// logCapture keeps what libraries log: that is where containers/storage says
// what newuidmap said.
type logCapture struct{ messages []string }

// during runs f and returns its error. What is logged meanwhile goes nowhere
// else.
func (l *logCapture) during(f func() error) error {
	logger := logrus.StandardLogger()
	output := logger.Out
	hooks := logger.ReplaceHooks(logrus.LevelHooks{})
	logger.SetOutput(io.Discard)
	logger.AddHook(l)
	defer func() {
		logger.ReplaceHooks(hooks)
		logger.SetOutput(output)
	}()
	return f()
}

// helperMessages returns what newuidmap and newgidmap said.
func (l *logCapture) helperMessages() string {
	var all []string
	for _, message := range l.messages {
		if _, said, found := strings.Cut(message, "running new"); found {
			all = append(all, "new"+said)
		}
	}
	return strings.Join(all, ", ")
}

// Levels implements logrus.Hook.
func (*logCapture) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements logrus.Hook.
func (l *logCapture) Fire(e *logrus.Entry) error {
	l.messages = append(l.messages, strings.TrimSpace(e.Message))
	return nil
}
