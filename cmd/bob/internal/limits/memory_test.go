package limits

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

// place writes files below a new directory, which it returns.
func place(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for file, content := range files {
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestPIDLimit(t *testing.T) {
	for name, tt := range map[string]struct {
		files   map[string]string
		own     map[string]string
		refused bool
	}{
		"none":           {nil, map[string]string{"": "/a"}, false},
		"v2, no limit":   {map[string]string{"a/pids.max": "max\n", "a/pids.current": "900\n"}, map[string]string{"": "/a"}, false},
		"v2, enough":     {map[string]string{"a/pids.max": "64\n", "a/pids.current": "32\n"}, map[string]string{"": "/a"}, false},
		"v2, too few":    {map[string]string{"a/pids.max": "64\n", "a/pids.current": "33\n"}, map[string]string{"": "/a"}, true},
		"v2, above":      {map[string]string{"pids.max": "20\n", "pids.current": "1\n", "a/pids.max": "64\n"}, map[string]string{"": "/a"}, true},
		"v1, too few":    {map[string]string{"pids/a/pids.max": "20\n", "pids/a/pids.current": "1\n"}, map[string]string{"pids": "/a"}, true},
		"v1, containers": {map[string]string{"pids/pids.max": "20\n", "pids/pids.current": "1\n"}, map[string]string{"pids": "/docker/01"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkPIDs(place(t, tt.files), tt.own)
			if refused := err != nil; refused != tt.refused {
				t.Errorf("%v, want refused %t", err, tt.refused)
			}
		})
	}
}

func TestMemoryLimit(t *testing.T) {
	const none = math.MaxInt64
	for name, tt := range map[string]struct {
		files map[string]string
		own   map[string]string
		want  int64
	}{
		"nothing mounted":                 {nil, map[string]string{"": "/a"}, none},
		"v2":                              {map[string]string{"a/b/memory.max": "4096\n"}, map[string]string{"": "/a/b"}, 4096},
		"v2, no limit":                    {map[string]string{"a/memory.max": "max\n"}, map[string]string{"": "/a"}, none},
		"v2, above":                       {map[string]string{"a/b/memory.max": "8192\n", "a/memory.max": "4096\n"}, map[string]string{"": "/a/b"}, 4096},
		"v2, own namespace":               {map[string]string{"memory.max": "4096\n"}, map[string]string{"": "/"}, 4096},
		"v2, path of the host":            {map[string]string{"memory.max": "4096\n"}, map[string]string{"": "/docker/0123"}, 4096},
		"v1":                              {map[string]string{"memory/a/memory.limit_in_bytes": "4096\n", "memory/memory.limit_in_bytes": "9223372036854771712\n"}, map[string]string{"": "/x", "memory": "/a"}, 4096},
		"v1, no limit":                    {map[string]string{"memory/memory.limit_in_bytes": "9223372036854771712\n"}, map[string]string{"memory": "/a"}, none},
		"both":                            {map[string]string{"unified/a/memory.max": "4096\n", "memory/a/memory.limit_in_bytes": "8192\n"}, map[string]string{"": "/a", "memory": "/a"}, 4096},
		"what can't be read as one":       {map[string]string{"memory.max": "many\n"}, map[string]string{"": "/"}, none},
		"a limit of nothing is a mistake": {map[string]string{"memory.max": "0\n"}, map[string]string{"": "/"}, none},
	} {
		t.Run(name, func(t *testing.T) {
			if got := memoryLimit(place(t, tt.files), tt.own); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}
