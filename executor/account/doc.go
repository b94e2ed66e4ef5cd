// Package account looks users and groups up as an image has them, in its own /etc/passwd
// and /etc/group. Both files are resolved inside the image's root by the kernel, since an
// image may hold links that point anywhere.
package account
