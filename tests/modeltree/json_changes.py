"""Changes to JSON, to be made before it is read."""


def setting(*path, value):
    def change(plain):
        for key in path[:-1]:
            plain = plain[key]
        plain[path[-1]] = value

    return change


def both(*changes):
    def change(plain):
        for each in changes:
            each(plain)

    return change
