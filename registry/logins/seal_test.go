package logins_test

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/bobbuild/bob/registry/logins"
)

// TestUnseal opens what others have sealed: test case 14 of the specification of GCM
// (McGrew and Viega), and texts sealed here.
func TestUnseal(t *testing.T) {
	t.Parallel()
	zero := make([]byte, 32)
	known := append(make([]byte, 12), "\xce\xa7\x40\x3d\x4d\x60\x6b\x6e\x07\x4e\xc5\xd3\xba\xf3\x9d\x18\xd0\xd1\xc8\xa7\x99\x99\x6b\xf0\x26\x5b\x98\xb5\xd4\x8a\xb9\x19"...)
	if got, err := logins.Unseal(zero, base64.RawStdEncoding.EncodeToString(known)); err != nil || string(got) != string(make([]byte, 16)) {
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
		if got, err := logins.Unseal(key, encoding.EncodeToString(sealed)+"\n"); err != nil || string(got) != text {
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
		_, err := logins.Unseal([]byte(tt.key), tt.sealed)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), tt.key) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
