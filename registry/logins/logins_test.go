package logins_test

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobbuild/bob/registry/logins"
	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// resolved returns what a keychain has for a repository, in words.
func resolved(t *testing.T, k authn.Keychain, repository string) string {
	t.Helper()
	repo, err := name.NewRepository(repository)
	if err != nil {
		t.Fatal(err)
	}
	found, err := k.Resolve(repo)
	if err != nil {
		return "error: " + err.Error()
	}
	config, err := found.Authorization()
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case config.IdentityToken != "":
		return "identity " + config.IdentityToken
	case config.RegistryToken != "":
		return "token " + config.RegistryToken
	case config.Username != "":
		return config.Username + " " + config.Password
	}
	return ""
}

func auth(user, password string) string {
	return `{"auth":"` + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + `"}`
}

func TestAuths(t *testing.T) {
	t.Parallel()
	inner := `{
		"a.test": ` + auth("host", "1") + `,
		"https://a.test/v2/": ` + auth("old", "0") + `,
		"a.test/team": ` + auth("team", "2:3") + `,
		"a.test/team/app": ` + auth("app", "4") + `,
		"b.test:5000": {"auth":"` + base64.RawStdEncoding.EncodeToString([]byte("unpadded:12")) + `"},
		"https://c.test:5000/v1/": {"username":"plain","password":"p w"},
		"https://index.docker.io/v1/": ` + auth("hub", "5") + `,
		"docker.io/team": ` + auth("hubteam", "6") + `,
		"d.test": {"identitytoken":"refresh"},
		"e.test": {"registrytoken":"bearer"},
		"f.test": {},
		"zz.test": ` + auth("bare", "7") + `,
		"http://zz.test": ` + auth("url", "8") + `,
		"localhost:5000/v2": ` + auth("v2", "9") + `
	}`
	for name, text := range map[string]string{"bare": inner, "wrapped": `{"auths":` + inner + `,"credsStore":"x"}`} {
		a, err := logins.Parse([]byte(text), name)
		if err != nil {
			t.Fatal(err)
		}
		for repository, want := range map[string]string{
			"a.test/x": "host 1", "a.test/team": "team 2:3", "a.test/team/other": "team 2:3", "a.test/team/app": "app 4",
			"a.test/team/app/deep": "app 4", "a.test/teams/app": "host 1", "a.test:443/x": "", "b.test/x": "",
			"b.test:5000/x": "unpadded 12", "c.test:5000/x": "plain p w", "debian": "hub 5", "docker.io/team/x": "hubteam 6",
			"index.docker.io/library/debian": "hub 5", "d.test/x": "identity refresh", "e.test/x": "token bearer", "f.test/x": "",
			"zz.test/x": "bare 7", "nowhere.test/x": "", "localhost:5000/v2/x": "v2 9", "localhost:5000/x": "",
		} {
			if got := resolved(t, a, repository); got != want {
				t.Errorf("%s, %s: %q, want %q", name, repository, got, want)
			}
		}
	}
	for _, text := range []string{
		"", "hunter2", `"hunter2"`, `{"auths":"hunter2"}`, `{"a.test":"hunter2"}`, `{"a.test":{"auth":"hunter2!"}}`,
		`{"a.test":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("hunter2")) + `"}}`, `{"a.test":{"auth":["hunter2"]}}`, `{"hunter2`,
	} {
		_, err := logins.Parse([]byte(text), "THE_VARIABLE")
		if err == nil || !strings.HasPrefix(err.Error(), "THE_VARIABLE: ") || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "aHVudGVy") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestAuthFile(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for name, script := range map[string]string{
		"good":   `read host; echo "{\"Username\":\"$host\",\"Secret\":\"of-helper\"}"`,
		"token":  `cat > /dev/null; echo '{"Username":"<token>","Secret":"refresh"}'`,
		"empty":  `cat > /dev/null; echo credentials not found in native keychain; exit 1`,
		"broken": `cat > /dev/null; echo 'no luck: password=hunter2 Secret: hunter2'; exit 1`,
	} {
		if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for text, want := range map[string][]string{ // a.test/team/app, docker.io/library/debian
		``:   {"", ""},
		`{}`: {"", ""},
		`{"auths":{"a.test":` + auth("file", "1") + `}}`:                                                 {"file 1", ""},
		`{"auths":{"a.test":{}},"credsStore":"good"}`:                                                    {"a.test of-helper", "https://index.docker.io/v1/ of-helper"},
		`{"auths":{"a.test/team":` + auth("team", "2") + `},"credHelpers":{"a.test":"empty"}}`:           {"team 2", ""},
		`{"auths":{"a.test/team":` + auth("team", "2") + `},"credHelpers":{"a.test":"good"}}`:            {"a.test of-helper", ""},
		`{"credHelpers":{"https://index.docker.io/v1/":"token"},"credsStore":"empty"}`:                   {"", "identity refresh"},
		`{"credHelpers":{"docker.io":"good"}}`:                                                           {"", "https://index.docker.io/v1/ of-helper"},
		`{"credHelpers":{"a.test":"broken"}}`:                                                            {"error: docker-credential-broken, named in FILE: ", ""},
		`{"credHelpers":{"a.test":"none"}}`:                                                              {"error: docker-credential-none, named in FILE: ", ""},
		`{"auths":{"a.test":"hunter2"}}`:                                                                 {"error: FILE: entry \"a.test\"", "error: FILE: "},
		`{"auths": hunter2}`:                                                                             {"error: FILE: not JSON", "error: FILE: "},
		`{"auths":{"a.test":` + auth("file", "1") + `},"HttpHeaders":{},"proxies":{"default":{}},"x":1}`: {"file 1", ""},
	} {
		path := filepath.Join(dir, "config.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		k := logins.File(path)
		for i, repository := range []string{"a.test/team/app", "debian"} {
			got, isError := resolved(t, k, repository), strings.HasPrefix(want[i], "error")
			short := strings.ReplaceAll(got, path, "FILE")
			if short != want[i] && (!isError || !strings.HasPrefix(short, want[i])) || strings.Contains(got, "hunter2") {
				t.Errorf("%s, %s: %q, want %q", text, repository, short, want[i])
			}
		}
	}
	if got := resolved(t, logins.File(filepath.Join(dir, "nothing.json")), "a.test/x"); got != "" {
		t.Errorf("missing file: %q", got)
	}
	if got := resolved(t, logins.File(dir), "a.test/x"); !strings.HasPrefix(got, "error") {
		t.Errorf("directory: %q", got)
	}
}

// A file of credentials may be anything that is named, but not without end.
func TestFileIsBounded(t *testing.T) {
	t.Parallel()
	endless := filepath.Join(t.TempDir(), "x")
	if err := os.Symlink("/dev/zero", endless); err != nil {
		t.Fatal(err)
	}
	repo, err := name.NewRepository("host/app")
	if err != nil {
		t.Fatal(err)
	}
	_, err = logins.File(endless).Resolve(repo)
	if !errors.As(err, new(*bounded.LimitError)) || !strings.Contains(err.Error(), endless) {
		t.Error(err)
	}
}
