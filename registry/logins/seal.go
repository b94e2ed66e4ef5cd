package logins

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// sealKeySize is the size of an AES-256 key, in bytes.
const sealKeySize = 32

// Unseal decrypts credentials that were handed over encrypted: base64, of either
// alphabet and padded or not, of a nonce of 12 bytes followed by what AES-256-GCM
// made of the text under the key of 32 bytes. Errors hold neither.
func Unseal(key []byte, sealed string) ([]byte, error) {
	if len(key) != sealKeySize {
		return nil, fmt.Errorf("the key has %d bytes, want %d", len(key), sealKeySize)
	}
	sealed = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(strings.TrimSpace(sealed), "="))
	raw, err := base64.RawStdEncoding.DecodeString(sealed)
	if err != nil {
		return nil, errors.New("not base64: with a key, what it encrypted is expected")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	if len(raw) < gcm.NonceSize()+gcm.Overhead() {
		return nil, fmt.Errorf("too short: %d bytes can't hold a nonce of %d and a tag of %d", len(raw), gcm.NonceSize(), gcm.Overhead())
	}
	text, err := gcm.Open(nil, raw[:gcm.NonceSize()], raw[gcm.NonceSize():], nil)
	if err != nil {
		return nil, errors.New("it was encrypted with another key, or damaged")
	}
	return text, nil
}
