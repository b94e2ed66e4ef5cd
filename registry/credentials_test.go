package registry_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/snapshot/bounded"
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

func basic64(user, password string) string {
	return `{"auth":"` + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + `"}`
}

func TestAuths(t *testing.T) {
	t.Parallel()
	inner := `{
		"a.test": ` + basic64("host", "1") + `,
		"https://a.test/v2/": ` + basic64("old", "0") + `,
		"a.test/team": ` + basic64("team", "2:3") + `,
		"a.test/team/app": ` + basic64("app", "4") + `,
		"b.test:5000": {"auth":"` + base64.RawStdEncoding.EncodeToString([]byte("unpadded:12")) + `"},
		"https://c.test:5000/v1/": {"username":"plain","password":"p w"},
		"https://index.docker.io/v1/": ` + basic64("hub", "5") + `,
		"docker.io/team": ` + basic64("hubteam", "6") + `,
		"d.test": {"identitytoken":"refresh"},
		"e.test": {"registrytoken":"bearer"},
		"f.test": {},
		"zz.test": ` + basic64("bare", "7") + `,
		"http://zz.test": ` + basic64("url", "8") + `,
		"localhost:5000/v2": ` + basic64("v2", "9") + `
	}`
	for name, text := range map[string]string{"bare": inner, "wrapped": `{"auths":` + inner + `,"credsStore":"x"}`} {
		a, err := registry.ParseAuths([]byte(text), name)
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
		_, err := registry.ParseAuths([]byte(text), "THE_VARIABLE")
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
		`{"auths":{"a.test":` + basic64("file", "1") + `}}`:                                                 {"file 1", ""},
		`{"auths":{"a.test":{}},"credsStore":"good"}`:                                                       {"a.test of-helper", "https://index.docker.io/v1/ of-helper"},
		`{"auths":{"a.test/team":` + basic64("team", "2") + `},"credHelpers":{"a.test":"empty"}}`:           {"team 2", ""},
		`{"auths":{"a.test/team":` + basic64("team", "2") + `},"credHelpers":{"a.test":"good"}}`:            {"a.test of-helper", ""},
		`{"credHelpers":{"https://index.docker.io/v1/":"token"},"credsStore":"empty"}`:                      {"", "identity refresh"},
		`{"credHelpers":{"docker.io":"good"}}`:                                                              {"", "https://index.docker.io/v1/ of-helper"},
		`{"credHelpers":{"a.test":"broken"}}`:                                                               {"error: docker-credential-broken, named in FILE: ", ""},
		`{"credHelpers":{"a.test":"none"}}`:                                                                 {"error: docker-credential-none, named in FILE: ", ""},
		`{"auths":{"a.test":"hunter2"}}`:                                                                    {"error: FILE: entry \"a.test\"", "error: FILE: "},
		`{"auths": hunter2}`:                                                                                {"error: FILE: not JSON", "error: FILE: "},
		`{"auths":{"a.test":` + basic64("file", "1") + `},"HttpHeaders":{},"proxies":{"default":{}},"x":1}`: {"file 1", ""},
	} {
		path := filepath.Join(dir, "config.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		k := registry.AuthFile(path)
		for i, repository := range []string{"a.test/team/app", "debian"} {
			got, isError := resolved(t, k, repository), strings.HasPrefix(want[i], "error")
			short := strings.ReplaceAll(got, path, "FILE")
			if short != want[i] && (!isError || !strings.HasPrefix(short, want[i])) || strings.Contains(got, "hunter2") {
				t.Errorf("%s, %s: %q, want %q", text, repository, short, want[i])
			}
		}
	}
	if got := resolved(t, registry.AuthFile(filepath.Join(dir, "nothing.json")), "a.test/x"); got != "" {
		t.Errorf("missing file: %q", got)
	}
	if got := resolved(t, registry.AuthFile(dir), "a.test/x"); !strings.HasPrefix(got, "error") {
		t.Errorf("directory: %q", got)
	}
}

// TestUnseal opens what others have sealed: test case 14 of the specification of GCM
// (McGrew and Viega), and texts sealed here.
// Files of settings may be anything that is named, but not without end.
func TestSettingsAreBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	endless := filepath.Join(dir, "x.crt")
	if err := os.Symlink("/dev/zero", endless); err != nil {
		t.Fatal(err)
	}
	repo, err := name.NewRepository("host/app")
	if err != nil {
		t.Fatal(err)
	}
	_, errAuth := registry.AuthFile(endless).Resolve(repo)
	_, errConf := registry.ReadConf(t.Context(), endless)
	_, errPair := registry.KeyPair(t.Context(), endless, endless)
	for what, err := range map[string]error{
		"credentials": errAuth, "settings": errConf, "key pair": errPair, "authorities": registry.AddCA(t.Context(), x509.NewCertPool(), endless),
	} {
		if !errors.As(err, new(*bounded.LimitError)) || !strings.Contains(err.Error(), endless) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestUnseal(t *testing.T) {
	t.Parallel()
	zero := make([]byte, 32)
	known := append(make([]byte, 12), "\xce\xa7\x40\x3d\x4d\x60\x6b\x6e\x07\x4e\xc5\xd3\xba\xf3\x9d\x18\xd0\xd1\xc8\xa7\x99\x99\x6b\xf0\x26\x5b\x98\xb5\xd4\x8a\xb9\x19"...)
	if got, err := registry.Unseal(zero, base64.RawStdEncoding.EncodeToString(known)); err != nil || string(got) != string(make([]byte, 16)) {
		t.Errorf("known text: %q, %v", got, err)
	}
	key := []byte("0123456789abcdef0123456789abcdef")
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := []byte("\xff\xfe\xfd\xfc?>~ nonce"[:12])
	const text = `{"auths":{"a.test":{"auth":"aHVudGVyMjpodW50ZXIy"}}}`
	sealed := gcm.Seal(nonce, nonce, []byte(text), nil)
	for name, encoding := range map[string]*base64.Encoding{
		"raw": base64.RawStdEncoding, "padded": base64.StdEncoding, "URL": base64.URLEncoding, "raw URL": base64.RawURLEncoding,
	} {
		if got, err := registry.Unseal(key, encoding.EncodeToString(sealed)+"\n"); err != nil || string(got) != text {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	damaged := append([]byte(nil), sealed...)
	damaged[20] ^= 1
	for name, tt := range map[string]struct{ key, sealed, want string }{
		"short key":   {"hunter2", "", "the key has 7 bytes, want 32"},
		"not sealed":  {string(key), text, "not base64"},
		"too short":   {string(key), "aHVudGVyMg", "too short: 7 bytes"},
		"other key":   {"hunter2hunter2hunter2hunter2abcd", base64.StdEncoding.EncodeToString(sealed), "another key, or damaged"},
		"damaged":     {string(key), base64.StdEncoding.EncodeToString(damaged), "another key, or damaged"},
		"cut":         {string(key), base64.StdEncoding.EncodeToString(sealed[:40]), "another key, or damaged"},
		"empty":       {string(key), "", "too short: 0 bytes"},
		"long key":    {string(key) + "=", "", "the key has 33 bytes"},
		"wrong bytes": {string(key), "hunter2\x00", "not base64"},
	} {
		_, err := registry.Unseal([]byte(tt.key), tt.sealed)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), tt.key) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCredentialIsTold checks that where a credential comes from is told once for
// each host, and that nobody is told what it is.
func TestCredentialIsTold(t *testing.T) {
	t.Parallel()
	guarded, open := serve(t, basicOnly(newInner(t))), serveEmbedded(t)
	a, err := registry.ParseAuths([]byte(`{"`+guarded+`/team":`+basic64(user, password)+`}`), "THE_VARIABLE")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var told []string
	c := newClient(t, func(o *registry.Options) {
		o.Keychain, o.PushKeychain = anonymous{}, a
		o.Credential = func(host, origin string) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, host+" "+origin)
		}
	})
	f := newFixture(t, amd64, 10)
	f.push(t.Context(), t, c, guarded+"/team/app:1")
	f.push(t.Context(), t, c, guarded+"/team/app:2")
	f.push(t.Context(), t, c, open+"/app:1")
	f.check(t.Context(), t, c, open+"/app:1")
	if _, err := c.Resolve(t.Context(), guarded+"/team/app:1", amd64); err == nil {
		t.Error("the credentials of pushes were used for a pull")
	}
	want := guarded + " THE_VARIABLE\n" + open + " \n" + guarded + " "
	if got := strings.Join(told, "\n"); got != want {
		t.Errorf("told %q, want %q", got, want)
	}
}
