//go:build !cgo

package entry

import "errors"

// startThread needs cgo.
func startThread(int) error {
	return errors.New("this binary was built without cgo: build with CGO_ENABLED=1 and -tags seccomp")
}
