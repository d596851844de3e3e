package dev.persona.demo.screen

import dev.persona.demo.session.Action

/** A rectangle of a screen, in dp. */
data class Box(val left: Float, val top: Float, val width: Float, val height: Float)

/** What a region is to a finger and to a screen reader. */
enum class Role {
    HEADING,
    TEXT,
    BUTTON,
    CHOICE,
    SWITCH,
    FIELD,
    PAD,
    ITEM,
}

/**
 * A part of a screen that can be touched or is read aloud. On the phone each is a view of its own
 * that lies over what the draw list shows there.
 *
 * @property label what is read aloud; a field's hint
 * @property selected of a choice or a switch
 */
data class Region(
    val box: Box,
    val role: Role,
    val label: String,
    val action: Action? = null,
    val enabled: Boolean = true,
    val selected: Boolean = false,
)
