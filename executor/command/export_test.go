package command

// SystemBundle is systemBundle.
var SystemBundle = systemBundle
