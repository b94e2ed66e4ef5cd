package words_test

import (
	"strings"
	"testing"

	"github.com/bobbuild/bob/registry/internal/words"
)

func TestRedact(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{
		"https://ann:SECRET99@host/path", "https://host/v2/?token=SECRET99&x=SECRET99", "Authorization: Bearer SECRET99",
		"basic SECRET99==", `{"access_token":"SECRET99"}`, "password=SECRET99", "refresh_token: SECRET99",
	} {
		if got := words.Redact(secret); strings.Contains(got, "SECRET99") {
			t.Errorf("%q became %q", secret, got)
		}
	}
	const plain = "no such host index.docker.io (404 Not Found): the basic thing"
	if got := words.Redact(plain); got != plain {
		t.Errorf("%q became %q", plain, got)
	}
}
