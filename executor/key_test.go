package executor_test

import (
	"testing"

	"github.com/bobbuild/bob/executor"
)

func TestKeysAreFramed(t *testing.T) {
	t.Parallel()
	keys := map[string]string{
		"kind a":        executor.KeyOf("a"),
		"kind b":        executor.KeyOf("b"),
		"empty value":   executor.KeyOf("a", ""),
		"ab c":          executor.KeyOf("a", "ab", "c"),
		"a bc":          executor.KeyOf("a", "a", "bc"),
		"abc":           executor.KeyOf("a", "abc"),
		"lists ab|c":    executor.KeyOfLists([]string{"a", "b"}, []string{"c"}),
		"lists a|bc":    executor.KeyOfLists([]string{"a"}, []string{"b", "c"}),
		"lists abc|":    executor.KeyOfLists([]string{"a", "b", "c"}, nil),
		"lists |abc":    executor.KeyOfLists(nil, []string{"a", "b", "c"}),
		"kind with NUL": executor.KeyOf("a\x00b"),
	}
	seen := make(map[string]string)
	for name, key := range keys {
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %q have the same key", name, other)
		}
		seen[key] = name
	}
}
