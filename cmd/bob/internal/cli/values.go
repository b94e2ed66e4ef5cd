package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A List is a flag that may be repeated. The variable that stands for it holds one value
// a line; values on the command line are taken as they are.
type List struct {
	Values []string
	// given says that the flag is on the command line. Its variable isn't read then.
	given bool
}

func (l *List) String() string { return strings.Join(l.Values, " ") }

// Set adds a value from the command line, or all values that a variable holds.
func (l *List) Set(s string) error {
	if l.given {
		l.Values = append(l.Values, s)
		return nil
	}
	l.Values = append(l.Values, strings.FieldsFunc(s, func(r rune) bool { return r == '\n' })...)
	return nil
}

// A Text is a flag with one value.
type Text string

func (t *Text) String() string { return string(*t) }

// Set sets the value.
func (t *Text) Set(s string) error { *t = Text(s); return nil }

// A Choice is a flag that may be left unset.
type Choice struct {
	// Made says that the flag is set.
	Made  bool
	value bool
}

func (c *Choice) String() string { return "" }

// IsBoolFlag makes the flag without a value mean true.
func (c *Choice) IsBoolFlag() bool { return true }

// Type is what pflag calls it in usage.
func (c *Choice) Type() string { return "bool" }

// Set sets the value.
func (c *Choice) Set(s string) error {
	c.Made = true
	switch strings.ToLower(s) {
	case "true", "1", "yes":
		c.value = true
	case "false", "0", "no":
		c.value = false
	default:
		return fmt.Errorf("%q is neither true nor false", s)
	}
	return nil
}

// Or returns the choice, or otherwise if the flag isn't set.
func (c *Choice) Or(otherwise bool) bool {
	if c.Made {
		return c.value
	}
	return otherwise
}

// A Field is one of the comma-separated fields of a value, as type=oci.
type Field struct {
	Key, Value string
	// HasValue says that there is a "=".
	HasValue bool
}

// Fields splits the value of a flag into its fields, which are in quotes where they
// hold a comma (RFC 4180), as in buildx.
func Fields(value string) ([]Field, error) {
	record, err := csv.NewReader(strings.NewReader(value)).Read()
	if err != nil {
		return nil, errors.New("want comma-separated fields, NAME=VALUE")
	}
	fields := make([]Field, 0, len(record))
	for _, f := range record {
		key, value, ok := strings.Cut(f, "=")
		fields = append(fields, Field{strings.TrimSpace(key), value, ok})
	}
	return fields, nil
}

// Bool parses the value of a field that is true or false; one without a value is true.
func Bool(value string) (bool, error) {
	if value == "" {
		return true, nil
	}
	b, err := strconv.ParseBool(value)
	if err != nil {
		return false, errors.New("want true or false")
	}
	return b, nil
}
