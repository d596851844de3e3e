package dev.persona.demo.screen

/** Colours as 0xAARRGGBB. The series' colours can be told apart by people who see no red or green. */
enum class Palette(private val colours: Map<Tone, Long>) {
    LIGHT(
        mapOf(
            Tone.BACKGROUND to 0xFFF4F5F8,
            Tone.CARD to 0xFFFFFFFF,
            Tone.FIELD to 0xFFF4F5F8,
            Tone.OUTLINE to 0xFFD9DCE5,
            Tone.TEXT to 0xFF1A1D26,
            Tone.MUTED to 0xFF5E6475,
            Tone.ACCENT to 0xFF3D4FD1,
            Tone.ON_ACCENT to 0xFFFFFFFF,
            Tone.ACCENT_TINT to 0xFFE6E9FC,
            Tone.GOOD to 0xFF0B6B4F,
            Tone.GOOD_TINT to 0xFFDDF3EA,
            Tone.WARNING to 0xFF7A4B00,
            Tone.WARNING_TINT to 0xFFFDEFD3,
            Tone.BAD to 0xFFA3202C,
            Tone.BAD_TINT to 0xFFFBE1E3,
            Tone.BASE to 0xFF8A91A5,
            Tone.EDITED to 0xFF3D4FD1,
            Tone.PROTOTYPE to 0xFFC77700,
            Tone.GRID to 0xFFE3E6EE,
            Tone.DISABLED to 0xFFB6BBC9,
        ),
    ),
    DARK(
        mapOf(
            Tone.BACKGROUND to 0xFF101218,
            Tone.CARD to 0xFF1B1E28,
            Tone.FIELD to 0xFF12141B,
            Tone.OUTLINE to 0xFF353A4A,
            Tone.TEXT to 0xFFECEEF5,
            Tone.MUTED to 0xFFA0A7BA,
            Tone.ACCENT to 0xFF9AA7FF,
            Tone.ON_ACCENT to 0xFF101433,
            Tone.ACCENT_TINT to 0xFF272D52,
            Tone.GOOD to 0xFF6FD6B0,
            Tone.GOOD_TINT to 0xFF14352B,
            Tone.WARNING to 0xFFF4C26B,
            Tone.WARNING_TINT to 0xFF3A2C10,
            Tone.BAD to 0xFFFF9AA2,
            Tone.BAD_TINT to 0xFF431B20,
            Tone.BASE to 0xFF7C8498,
            Tone.EDITED to 0xFF9AA7FF,
            Tone.PROTOTYPE to 0xFFF0A945,
            Tone.GRID to 0xFF2C3040,
            Tone.DISABLED to 0xFF4A5062,
        ),
    ),
    ;

    /** The colour of a tone, as Android and java.awt take it. */
    fun argb(tone: Tone): Int = colours.getValue(tone).toInt()

    /** Between the field's colour and the text's: an image's grey value. */
    fun shade(share: Float): Int {
        val (from, to) = argb(Tone.FIELD) to argb(Tone.TEXT)
        fun channel(shift: Int): Int {
            val (low, high) = (from ushr shift and 0xFF) to (to ushr shift and 0xFF)
            return (low + (high - low) * share.coerceIn(0f, 1f)).toInt() shl shift
        }
        return 0xFF shl 24 or channel(16) or channel(8) or channel(0)
    }
}
